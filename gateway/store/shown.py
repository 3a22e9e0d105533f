"""Rows as people and programs outside see them: dollars as text, dates, and never a hash."""

import csv
import datetime
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.forecast import Forecast
from gateway.money import show
from gateway.store.audit import Entry
from gateway.store.keys import Key
from gateway.store.labels import Label
from gateway.store.rows import now_ms
from gateway.store.teams import Budget, Team
from gateway.store.usage import Line, Row

Shown = dict[str, Any]


def moment(ms: int | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    if ms is None:
        return None
    return f"{datetime.datetime.fromtimestamp(ms // 1000, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def today() -> datetime.date:
    """The day that the sums are kept by, which is UTC's."""
    return datetime.datetime.now(datetime.UTC).date()


def as_csv(rows: Sequence[Shown]) -> str:
    """With a header line; None is empty, lists are joined by blanks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([cell(value) for value in row.values()] for row in rows)
    return out.getvalue()


def cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def of_key(key: Key) -> Shown:
    return {
        "id": key.id,
        "name": key.name,
        "team": key.team,
        "state": key.state(now_ms()),
        "scopes": key.scopes,
        "families": key.families,
        "limits": key.limits,
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "last_used_at": moment(key.last_used_at),
    }


def of_team(team: Team) -> Shown:
    return {"name": team.name, "limits": team.limits, "created_at": moment(team.created_at)}


def of_budget(budget: Budget, spent: int) -> Shown:
    return {
        "subject": budget.subject,
        "period": budget.period,
        "soft": None if budget.soft is None else show(budget.soft),
        "hard": None if budget.hard is None else show(budget.hard),
        "spent": show(spent),
    }


def of_label(label: Label) -> Shown:
    return {
        "family": label.owner,
        "label": label.label,
        "release": label.target,
        "previous": label.previous,
        "changed_at": moment(label.changed_at),
    }


def of_prompt_label(label: Label) -> Shown:
    return {
        "prompt": label.owner,
        "label": label.label,
        "version": label.target,
        "previous": label.previous,
        "changed_at": moment(label.changed_at),
    }


def of_entry(entry: Entry) -> Shown:
    return msgspec.structs.asdict(entry) | {"at": moment(entry.at)}


def of_line(line: Line) -> Shown:
    return msgspec.structs.asdict(line) | {"cost": show(line.cost)}


def of_row(row: Row) -> Shown:
    return msgspec.structs.asdict(row) | {
        "started_at": moment(row.started_at),
        "cost": show(row.cost),
    }


def of_forecast(it: Forecast) -> Shown:
    costs: Mapping[str, int | None] = {
        name: getattr(it, name) for name in ("so_far", "expected", "low", "high")
    }
    shown = {name: None if nano is None else show(nano) for name, nano in costs.items()}
    return {"month": it.month, **shown, "days_known": it.days_known}
