"""`glassgate usage` and `glassgate budgets`: what was used, what it cost, what it may cost."""

import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from gateway.commands import by_me, changing, showing


def _day(_context: object, _param: object, value: datetime.datetime | None) -> datetime.date | None:
    return None if value is None else value.date()


def _dollars(_context: object, _param: object, value: str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value)
    except InvalidOperation as error:
        raise click.BadParameter("write dollars, such as 12.50") from error


DAY = click.DateTime(["%Y-%m-%d"])
BY = click.Choice(["key", "team", "family", "release", "day"])


@showing(
    None,
    "usage",
    click.option("--by", type=BY, default="team", show_default=True),
    click.option("--since", type=DAY, callback=_day, help="First day, UTC; else this month's."),
    click.option("--until", type=DAY, callback=_day, help="Last day, UTC; else today."),
    click.option("--key", help="Only this key's."),
    click.option("--team", help="Only this team's."),
    click.option("--family", help="Only this family's."),
    click.option("--release", help="Only this release's."),
    click.option("--forecast", is_flag=True, help="What this month will have cost."),
    click.option("--killed", is_flag=True, help="Requests that a killed gateway left unfinished."),
)
def usage(
    connection: Any, config: Any, forecast: bool, killed: bool, **asked: Any
) -> list[dict[str, Any]]:
    """Requests, tokens and dollars."""
    from gateway.store import shown
    from gateway.store import usage as store

    if forecast:
        return [shown.of_forecast(store.forecast_now(connection))]
    if killed:
        return [shown.of_row(row) for row in store.requests(connection, "killed", limit=1000)]
    by, since, until = (asked.pop(name) for name in ("by", "since", "until"))
    first, last = since or shown.today().replace(day=1), until or shown.today()
    only = {name: value for name, value in asked.items() if value is not None}
    return [shown.of_line(line) for line in store.report(connection, by, first, last, only)]


@click.group()
def budgets() -> None:
    """What a subject may spend: global, team:NAME, family:NAME or key:ID."""


@showing(budgets, "list")
def list_budgets(connection: Any, config: Any) -> list[dict[str, Any]]:
    """All budgets, and what of each is spent."""
    from gateway.store.shown import of_budget, today
    from gateway.store.usage import budgets_spent

    return [of_budget(*found) for found in budgets_spent(connection, today())]


@changing(
    budgets,
    "set",
    click.argument("subject"),
    click.argument("period", type=click.Choice(["day", "month"])),
    click.option("--soft", callback=_dollars, help="Dollars from which answers carry a warning."),
    click.option("--hard", callback=_dollars, help="Dollars from which requests are refused."),
)
def set_budget(connection: Any, config: Any, **fields: Any) -> None:
    """Set a budget; without --soft and --hard, remove it."""
    from gateway import moves
    from gateway.store.teams import NewBudget

    moves.put_budget(connection, by_me(), config, NewBudget(**fields))
