"""Teams, and the budgets of whoever can spend.

A budget's subject is "global", "team:NAME", "family:NAME" or "key:ID". `soft` only warns; `hard`
is the cost limit that admission enforces. Both are nano-dollars per UTC day or month.
"""

from decimal import Decimal
from typing import Literal

import msgspec
import sqlalchemy as sa

from gateway import money
from gateway.errors import BadRequest, NotFound
from gateway.store.audit import By, record
from gateway.store.changes import note
from gateway.store.rows import now_ms, put
from gateway.store.tables import budgets, keys, teams


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """`limits` names the limit class that its keys share; empty: none."""

    name: str
    limits: str = ""
    created_at: int = 0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Nano-dollars; None: without that bound."""

    subject: str
    period: Literal["day", "month"]
    soft: int | None = None
    hard: int | None = None


class NewBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for, in dollars. Without soft and hard the budget is removed."""

    subject: str
    period: Literal["day", "month"]
    soft: Decimal | None = None
    hard: Decimal | None = None


def all_teams(connection: sa.Connection) -> list[Team]:
    return [Team(**row._mapping) for row in connection.execute(sa.select(teams).order_by("name"))]


def find_team(connection: sa.Connection, name: str) -> Team | None:
    row = connection.execute(sa.select(teams).filter_by(name=name)).one_or_none()
    return Team(**row._mapping) if row else None


def put_team(connection: sa.Connection, by: By, name: str, limits: str = "") -> Team:
    """Makes the team, or changes its limit class."""
    old = find_team(connection, name)
    team = Team(name=name, limits=limits, created_at=old.created_at if old else now_ms())
    put(connection, teams, msgspec.structs.asdict(team))
    note(connection, "teams")
    record(connection, by, "team.put", name, old.limits if old else "", limits)
    return team


def delete_team(connection: sa.Connection, by: By, name: str) -> None:
    """Raises BadRequest while a key that is not revoked belongs to it."""
    if find_team(connection, name) is None:
        raise NotFound(f"there is no team {name!r}", param="name")
    alive = sa.select(keys.c.id).filter_by(team=name).where(keys.c.revoked_at.is_(None)).limit(1)
    if connection.execute(alive).first():
        raise BadRequest(f"team {name!r} still has keys", param="name", code="team_has_keys")
    connection.execute(teams.delete().where(teams.c.name == name))
    note(connection, "teams")
    record(connection, by, "team.delete", name)


def all_budgets(connection: sa.Connection) -> list[Budget]:
    query = sa.select(budgets).order_by(budgets.c.subject, budgets.c.period)
    return [Budget(**row._mapping) for row in connection.execute(query)]


def put_budget(connection: sa.Connection, by: By, new: NewBudget) -> Budget:
    """Sets or removes the subject's budget for the period. Raises BadRequest."""
    kind, _, name = new.subject.partition(":")
    if new.subject != "global" and (kind not in ("team", "family", "key") or not name):
        raise BadRequest(
            "a budget is for global, team:NAME, family:NAME or key:ID", param="subject"
        )
    soft, hard = _nano(new.soft, "soft"), _nano(new.hard, "hard")
    budget = Budget(subject=new.subject, period=new.period, soft=soft, hard=hard)
    note(connection, "budgets")  # first: its row lock makes two writers queue
    where = (budgets.c.subject == new.subject) & (budgets.c.period == new.period)
    old = connection.execute(sa.select(budgets).where(where)).one_or_none()
    if soft is None and hard is None:
        connection.execute(budgets.delete().where(where))
    else:
        put(connection, budgets, msgspec.structs.asdict(budget))
    before = _spell(Budget(**old._mapping)) if old else ""
    record(connection, by, "budget.put", new.subject, before, _spell(budget))
    return budget


def _nano(dollars: Decimal | None, param: str) -> int | None:
    if dollars is None:
        return None
    try:
        return money.to_nano(dollars)
    except ValueError as error:
        raise BadRequest(str(error), param=param) from error


def _spell(budget: Budget) -> str:
    bounds = (("soft", budget.soft), ("hard", budget.hard))
    parts = [f"{name} {money.show(nano)}" for name, nano in bounds if nano is not None]
    return f"{budget.period}: {', '.join(parts) or 'none'}"
