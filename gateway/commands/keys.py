"""`glassgate keys` and `glassgate teams`: who may come in."""

from pathlib import Path
from typing import Any

import click

from gateway.commands import CONFIG, FORMAT, by_me, opened, put_out


@click.group()
def keys() -> None:
    """Clients' keys."""


@keys.command("create")
@click.argument("name")
@click.option("--team", default="", help="A team that exists.")
@click.option("--scope", "scopes", multiple=True, default=("infer",), show_default=True)
@click.option("--family", "families", multiple=True, help="None: all.")
@click.option("--limits", default="", help="A limit class of the config.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="None: until revoked.")
@CONFIG
def create_key(config: Path | None, **fields: Any) -> None:
    """Make a key and print it, this once."""
    from gateway import moves
    from gateway.store.keys import OPERATOR, NewKey

    with opened(config, write=True) as (connection, settings):
        new = NewKey(**fields)
        key, text = moves.create_key(connection, by_me(), settings, OPERATOR, new)
    click.echo(f"Key {key.id} for {key.name}. Keep it: it is not shown again.", err=True)
    click.echo(text)


@keys.command("list")
@click.option("--team", default="")
@FORMAT
@CONFIG
def list_keys(config: Path | None, team: str, form: str) -> None:
    """All keys, without their secrets."""
    from gateway.store import shown
    from gateway.store.keys import all_keys

    with opened(config) as (connection, _):
        put_out([shown.of_key(key) for key in all_keys(connection, team)], form)


@keys.command("rotate")
@click.argument("id")
@click.option("--overlap-hours", type=click.FloatRange(0), default=24.0, show_default=True)
@CONFIG
def rotate_key(config: Path | None, id: str, overlap_hours: float) -> None:  # noqa: A002
    """Print a new secret for the key; the present one stays good for a while."""
    from gateway.store.keys import OPERATOR, rotate

    with opened(config, write=True) as (connection, _):
        _, text = rotate(connection, by_me(), OPERATOR, id, overlap_hours * 3600)
    click.echo(text)


@keys.command("revoke")
@click.argument("id")
@CONFIG
def revoke_key(config: Path | None, id: str) -> None:  # noqa: A002
    """End the key now."""
    from gateway.store.keys import revoke

    with opened(config, write=True) as (connection, _):
        revoke(connection, by_me(), id)


@click.group()
def teams() -> None:
    """Who shares limits and budgets."""


@teams.command("list")
@FORMAT
@CONFIG
def list_teams(config: Path | None, form: str) -> None:
    """All teams."""
    from gateway.store import shown
    from gateway.store.teams import all_teams

    with opened(config) as (connection, _):
        put_out([shown.of_team(team) for team in all_teams(connection)], form)


@teams.command("set")
@click.argument("name")
@click.option("--limits", default="", help="The limit class that its keys share.")
@CONFIG
def set_team(config: Path | None, name: str, limits: str) -> None:
    """Make a team, or change its limit class."""
    from gateway import moves

    with opened(config, write=True) as (connection, settings):
        moves.put_team(connection, by_me(), settings, name, limits)


@teams.command("delete")
@click.argument("name")
@CONFIG
def delete_team(config: Path | None, name: str) -> None:
    """Remove a team that has no keys."""
    from gateway.store.teams import delete_team as delete

    with opened(config, write=True) as (connection, _):
        delete(connection, by_me(), name)
