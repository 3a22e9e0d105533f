"""`glassgate releases` and `glassgate audit`: what serves, and who changed it."""

from pathlib import Path

import click

from gateway.commands import CONFIG, FORMAT, WHY, by_me, opened, put_out

LABEL = click.option("--label", default="production", show_default=True)


@click.group()
def releases() -> None:
    """What a family's labels point to, and how its traffic is shared."""


@releases.command("list")
@FORMAT
@CONFIG
def list_releases(config: Path | None, form: str) -> None:
    """Each release with its labels, and their shares of the traffic."""
    from gateway.moves import overview

    with opened(config) as (connection, settings):
        put_out(overview(connection, settings), form)


@releases.command("promote")
@click.argument("family")
@click.argument("release")
@LABEL
@WHY
@CONFIG
def promote(config: Path | None, family: str, release: str, label: str, why: str) -> None:
    """Point the family's label to the release."""
    from gateway import moves

    with opened(config, write=True) as (connection, settings):
        it = moves.promote(connection, by_me(why), settings, family, label, release)
    click.echo(f"{family}@{label}: {it.previous or 'nothing'} → {it.target}")


@releases.command("rollback")
@click.argument("family")
@LABEL
@WHY
@CONFIG
def rollback(config: Path | None, family: str, label: str, why: str) -> None:
    """Point the family's label back to where it was before its last promotion."""
    from gateway import moves

    with opened(config, write=True) as (connection, settings):
        it = moves.rollback(connection, by_me(why), settings, family, label)
    click.echo(f"{family}@{label}: back to {it.target}")


@releases.command("weights")
@click.argument("family")
@click.argument("shares", nargs=-1, required=True, metavar="LABEL=SHARE...")
@WHY
@CONFIG
def set_weights(config: Path | None, family: str, shares: tuple[str, ...], why: str) -> None:
    """Share the family's traffic, e.g. production=95 canary=5."""
    from gateway import moves

    try:
        parsed = {label: float(share) for label, share in (pair.split("=") for pair in shares)}
    except ValueError as error:
        raise click.BadParameter("write LABEL=SHARE", param_hint="SHARES") from error
    with opened(config, write=True) as (connection, settings):
        moves.set_weights(connection, by_me(why), settings, family, parsed)


@click.command()
@click.option("--subject", default="", help="Only changes of this, such as smollm2@production.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@FORMAT
@CONFIG
def audit(config: Path | None, subject: str, limit: int, form: str) -> None:
    """Who changed what, when and why; the youngest first."""
    from gateway.store import shown
    from gateway.store.audit import entries

    with opened(config) as (connection, _):
        put_out([shown.of_entry(it) for it in entries(connection, subject, limit=limit)], form)
