"""`glassgate usage` and `glassgate budgets`: what was used, what it cost, what it may cost."""

import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from gateway.commands import CONFIG, FORMAT, by_me, opened, put_out


def _day(_context: object, _param: object, value: datetime.datetime | None) -> datetime.date | None:
    return None if value is None else value.date()


def _dollars(_context: object, _param: object, value: str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value)
    except InvalidOperation as error:
        raise click.BadParameter("write dollars, such as 12.50") from error


DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option(
    "--by", type=click.Choice(["key", "team", "family", "release", "day"]), default="team"
)
@click.option("--since", type=DAY, callback=_day, help="First day, UTC. [default: this month's]")
@click.option("--until", type=DAY, callback=_day, help="Last day, UTC. [default: today]")
@click.option("--key", help="Only this key's.")
@click.option("--team", help="Only this team's.")
@click.option("--family", help="Only this family's.")
@click.option("--release", help="Only this release's.")
@click.option("--forecast", is_flag=True, help="What this month will have cost.")
@click.option("--killed", is_flag=True, help="Requests that a killed gateway left unfinished.")
@FORMAT
@CONFIG
def usage(config: Path | None, form: str, forecast: bool, killed: bool, **asked: Any) -> None:
    """Requests, tokens and dollars."""
    from gateway.store import shown
    from gateway.store import usage as store

    with opened(config) as (connection, _):
        if forecast:
            rows = [shown.of_forecast(store.forecast_now(connection))]
        elif killed:
            rows = [shown.of_row(row) for row in store.requests(connection, "killed", limit=1000)]
        else:
            by, until = asked.pop("by"), asked.pop("until") or shown.today()
            since = asked.pop("since") or shown.today().replace(day=1)
            only = {name: value for name, value in asked.items() if value is not None}
            found = store.report(connection, by, since, until, only)
            rows = [shown.of_line(line) for line in found]
        put_out(rows, form)


@click.group()
def budgets() -> None:
    """What a subject may spend: global, team:NAME, family:NAME or key:ID."""


@budgets.command("list")
@FORMAT
@CONFIG
def list_budgets(config: Path | None, form: str) -> None:
    """All budgets, and what of each is spent."""
    from gateway.store import shown
    from gateway.store.usage import budgets_spent

    with opened(config) as (connection, _):
        found = budgets_spent(connection, shown.today())
        put_out([shown.of_budget(budget, spent) for budget, spent in found], form)


@budgets.command("set")
@click.argument("subject")
@click.argument("period", type=click.Choice(["day", "month"]))
@click.option("--soft", callback=_dollars, help="Dollars from which answers carry a warning.")
@click.option("--hard", callback=_dollars, help="Dollars from which requests are refused.")
@CONFIG
def set_budget(config: Path | None, **fields: Any) -> None:
    """Set a budget; without --soft and --hard, remove it."""
    from gateway.store.teams import NewBudget, put_budget

    with opened(config, write=True) as (connection, _):
        put_budget(connection, by_me(), NewBudget(**fields))
