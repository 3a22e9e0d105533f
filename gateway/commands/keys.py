"""`glassgate keys` and `glassgate teams`: who may come in."""

from typing import Any

import click

from gateway.commands import by_me, changing, showing

ID = click.argument("id")
NAME = click.argument("name")


@click.group()
def keys() -> None:
    """Clients' keys."""


@changing(
    keys,
    "create",
    NAME,
    click.option("--team", default="", help="A team that exists."),
    click.option("--scope", "scopes", multiple=True, default=("infer",), show_default=True),
    click.option("--family", "families", multiple=True, help="None: all."),
    click.option("--limits", default="", help="A limit class of the config."),
    click.option("--days", type=click.FloatRange(0, min_open=True), help="None: until revoked."),
)
def create_key(connection: Any, config: Any, **fields: Any) -> str:
    """Make a key and print it. It is not shown again."""
    from gateway import moves
    from gateway.store.keys import OPERATOR, NewKey

    return moves.create_key(connection, by_me(), config, OPERATOR, NewKey(**fields))[1]


@showing(keys, "list", click.option("--team", default=""))
def list_keys(connection: Any, config: Any, team: str) -> list[dict[str, Any]]:
    """All keys, without their secrets."""
    from gateway.store.keys import all_keys
    from gateway.store.shown import of_key

    return [of_key(key) for key in all_keys(connection, team)]


@changing(
    keys,
    "rotate",
    ID,
    click.option("--overlap-hours", type=click.FloatRange(0), default=24.0, show_default=True),
)
def rotate_key(connection: Any, config: Any, id: str, overlap_hours: float) -> str:  # noqa: A002
    """Print a new secret for the key; the present one stays good for a while."""
    from gateway.store.keys import OPERATOR, rotate

    return rotate(connection, by_me(), OPERATOR, id, overlap_hours * 3600)[1]


@changing(keys, "revoke", ID)
def revoke_key(connection: Any, config: Any, id: str) -> None:  # noqa: A002
    """End the key now."""
    from gateway.store.keys import revoke

    revoke(connection, by_me(), id)


@click.group()
def teams() -> None:
    """Who shares limits and budgets."""


@showing(teams, "list")
def list_teams(connection: Any, config: Any) -> list[dict[str, Any]]:
    """All teams."""
    from gateway.store.shown import of_team
    from gateway.store.teams import all_teams

    return [of_team(team) for team in all_teams(connection)]


@changing(
    teams, "set", NAME, click.option("--limits", default="", help="What class its keys share.")
)
def set_team(connection: Any, config: Any, name: str, limits: str) -> None:
    """Make a team, or change its limit class."""
    from gateway import moves

    moves.put_team(connection, by_me(), config, name, limits)


@changing(teams, "delete", NAME)
def delete_team(connection: Any, config: Any, name: str) -> None:
    """Remove a team that has no keys."""
    from gateway.store.teams import delete_team as delete

    delete(connection, by_me(), name)
