"""`glassgate releases` and `glassgate audit`: what serves, and who changed it."""

from typing import Any

import click

from gateway.commands import by_me, changing, showing

FAMILY = click.argument("family")
LABEL = click.option("--label", default="production", show_default=True)
WHY = click.option("--why", required=True, help="The reason, kept in the audit.")


@click.group()
def releases() -> None:
    """What a family's labels point to, and how its traffic is shared."""


@showing(releases, "list")
def list_releases(connection: Any, config: Any) -> list[dict[str, Any]]:
    """Each release with its labels and its share of the traffic."""
    from gateway.moves import overview

    return overview(connection, config)


@changing(releases, "promote", FAMILY, click.argument("release"), LABEL, WHY)
def promote(connection: Any, config: Any, family: str, release: str, label: str, why: str) -> str:
    """Point the family's label to the release."""
    from gateway import moves

    it = moves.promote(connection, by_me(why), config, family, label, release)
    return f"{family}@{label}: {it.previous or 'nothing'} → {it.target}"


@changing(releases, "rollback", FAMILY, LABEL, WHY)
def rollback(connection: Any, config: Any, family: str, label: str, why: str) -> str:
    """Point the family's label back to where it was before its last promotion."""
    from gateway import moves

    it = moves.rollback(connection, by_me(why), config, family, label)
    return f"{family}@{label}: back to {it.target}"


@changing(
    releases,
    "weights",
    FAMILY,
    click.argument("shares", nargs=-1, required=True, metavar="LABEL=SHARE..."),
    WHY,
)
def set_weights(
    connection: Any, config: Any, family: str, shares: tuple[str, ...], why: str
) -> None:
    """Share the family's traffic, e.g. production=95 canary=5."""
    from gateway import moves

    try:
        parsed = {label: float(share) for label, share in (pair.split("=") for pair in shares)}
    except ValueError as error:
        raise click.BadParameter("write LABEL=SHARE", param_hint="SHARES") from error
    moves.set_weights(connection, by_me(why), config, family, parsed)


@showing(
    None,
    "audit",
    click.option("--subject", default="", help="Only changes of this, e.g. smollm2@production."),
    click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True),
)
def audit(connection: Any, config: Any, subject: str, limit: int) -> list[dict[str, Any]]:
    """Who changed what, when and why; the youngest first."""
    from gateway.store.audit import entries
    from gateway.store.shown import of_entry

    return [of_entry(it) for it in entries(connection, subject, limit=limit)]
