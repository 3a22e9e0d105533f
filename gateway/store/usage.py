"""The ledger's rows and their daily sums: written together, so that a report never reads the rows.

A report of a year sums a few rows a day for each key, whatever the number of requests was. The rows
themselves are kept for a while, to answer for single requests and for less than a day; the sums
stay.
"""

import datetime
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from gateway.errors import BadRequest
from gateway.forecast import Forecast, forecast
from gateway.store.rows import DAY_MS, insert, insert_many
from gateway.store.tables import keys, ledger, usage_daily
from gateway.store.teams import Budget, all_budgets

Dimension = Literal["key", "team", "family", "release", "day"]
DIMENSIONS = ("key", "team", "family", "release")
SUMS = (
    "requests",
    "errors",
    "estimated",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost",
)
FINE = ("ok", "client_gone")  # outcomes that are no errors
DAY_S = DAY_MS // 1000
PRUNE_ROWS = 5000  # in one transaction


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request. Times of parts in microseconds, `cost` in nano-dollars.

    `outcome` is ok, client_gone, killed or the code of the error; "open" only in the journal.
    """

    id: str
    request_id: str
    started_at: int
    route: str
    key: str = ""
    team: str = ""
    family: str = ""
    release: str = ""
    target: str = ""
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usage_source: str = "estimated"
    cost: int = 0
    total_us: int = 0
    first_token_us: int | None = None
    upstream_us: int = 0
    finish: str = ""
    outcome: str = "open"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report: sums over `name`; `title` is what people call a key."""

    name: str
    title: str = ""
    requests: int
    errors: int
    estimated: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: int


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    """Of days since 1970."""
    return (datetime.date(1970, 1, 1) + datetime.timedelta(number)).isoformat()


def post(connection: sa.Connection, rows: Iterable[Row]) -> int:
    """Writes the rows that are not there yet, and adds them to their day. How many were new."""
    by_id = {row.id: row for row in rows}
    while not _insert_all(connection, by_id.values()):
        known = connection.scalars(sa.select(ledger.c.id).where(ledger.c.id.in_(by_id)))
        for row_id in known.all():
            del by_id[row_id]
    if by_id:
        insert_many(connection, _statements(connection.dialect)[1], _sums(by_id.values()))
    return len(by_id)


def _insert_all(connection: sa.Connection, rows: Collection[Row]) -> bool:
    """All or none: whether none was there, which is the rule and cheaper than to ask first."""
    if not rows:
        return True
    into_ledger = _statements(connection.dialect)[0]
    attempt = connection.begin_nested()
    num_new = insert_many(connection, into_ledger, [msgspec.structs.asdict(row) for row in rows])
    attempt.commit() if num_new == len(rows) else attempt.rollback()
    return num_new == len(rows)


def _sums(rows: Iterable[Row]) -> list[dict[str, str | int]]:
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        place = (_day(row.started_at // DAY_MS), row.key, row.team, row.family, row.release)
        total = sums.setdefault(place, [0] * len(SUMS))
        total[0] += 1
        total[1] += row.outcome not in FINE
        total[2] += row.usage_source == "estimated"
        total[3] += row.prompt_tokens
        total[4] += row.cached_tokens
        total[5] += row.completion_tokens
        total[6] += row.cost
    names = ("day", *DIMENSIONS, *SUMS)
    # In one order everywhere, so that two replicas never wait for each other's rows.
    return [dict(zip(names, (*place, *sums[place]), strict=True)) for place in sorted(sums)]


@lru_cache(maxsize=4)
def _statements(dialect: sa.Dialect) -> tuple[SQLCompiler, SQLCompiler]:
    """One row into the ledger; one row's sums onto its day."""
    into_days = insert(dialect, usage_daily)
    added = {name: usage_daily.c[name] + into_days.excluded[name] for name in SUMS}
    into_days = into_days.on_conflict_do_update(index_elements=["day", *DIMENSIONS], set_=added)
    into_ledger = insert(dialect, ledger).on_conflict_do_nothing()
    compiled = [it.compile(dialect=dialect) for it in (into_ledger, into_days)]
    return cast(tuple[SQLCompiler, SQLCompiler], tuple(compiled))


def report(
    connection: sa.Connection,
    by: Dimension,
    since: datetime.date,
    until: datetime.date,
    only: dict[str, str] | None = None,
) -> list[Line]:
    """Sums per `by` from `since` to `until`, both counted; `only` keeps e.g. {"team": "search"}.

    Days in order, everything else by cost, the dearest first.
    """
    column = usage_daily.c[by]
    total = [sa.func.sum(usage_daily.c[name]).label(name) for name in SUMS]
    named = sa.select(keys.c.name).where(keys.c.id == usage_daily.c.key).scalar_subquery()
    title = named if by == "key" else sa.literal("")
    query = sa.select(column.label("name"), title.label("title"), *total)
    query = query.where(*_between(since, until, only or {})).group_by(column)
    query = query.order_by(column) if by == "day" else query.order_by(sa.desc("cost"), column)
    return [_line(row.name, row, row.title or "") for row in connection.execute(query)]


def report_steps(
    connection: sa.Connection,
    since: int,
    step: int,
    count: int,
    only: dict[str, str] | None = None,
) -> list[Line]:
    """Sums of `count` steps of `step` [s] from `since` [s since 1970] on, named by their begin.

    In order; a step without requests has no line. Days of UTC are made of the daily sums, which
    are there for longer than the rows that all other steps are made of.
    """
    if step == DAY_S and since % DAY_S == 0:
        first = datetime.date(1970, 1, 1) + datetime.timedelta(since // DAY_S)
        days = report(connection, "day", first, first + datetime.timedelta(count - 1), only)
        return [msgspec.structs.replace(it, name=f"{it.name}T00:00:00Z") for it in days]
    number = (ledger.c.started_at - since * 1000) // (step * 1000)
    begin, end = (f"{at * 1000:012x}" for at in (since, since + count * step))  # as ids begin
    query = sa.select(number.label("number"), *_totals()).group_by("number").order_by("number")
    query = query.where(ledger.c.id >= begin, ledger.c.id < end, *_only(ledger, only or {}))
    return [_line(_moment(since + row.number * step), row) for row in connection.execute(query)]


def _totals() -> Iterator[sa.Label[int]]:
    """Of the ledger's rows, what `_sums` makes of new ones."""
    yield sa.func.count().label("requests")
    yield sa.func.sum(sa.case((ledger.c.outcome.in_(FINE), 0), else_=1)).label("errors")
    is_estimated = ledger.c.usage_source == "estimated"
    yield sa.func.sum(sa.case((is_estimated, 1), else_=0)).label("estimated")
    for name in SUMS[3:]:
        yield sa.func.sum(ledger.c[name]).label(name)


def _line(name: str, row: sa.Row[Any], title: str = "") -> Line:
    return Line(name=name, title=title, **{it: int(getattr(row, it)) for it in SUMS})


def _moment(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _between(
    since: datetime.date, until: datetime.date, only: dict[str, str]
) -> Sequence[sa.ColumnElement[bool]]:
    days = usage_daily.c.day.between(since.isoformat(), until.isoformat())
    return [days, *_only(usage_daily, only)]


def _only(table: sa.Table, only: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    if unknown := only.keys() - set(DIMENSIONS):
        raise BadRequest(f"usage is not kept by {min(unknown)!r}", param=min(unknown))
    return [table.c[name] == value for name, value in only.items()]


def spent(connection: sa.Connection, subject: str, since: datetime.date) -> int:
    """Nano-dollars that "global", "team:NAME", "family:NAME" or "key:ID" cost since that day."""
    kind, _, name = subject.partition(":")
    query = sa.select(sa.func.sum(usage_daily.c.cost)).where(usage_daily.c.day >= since.isoformat())
    if subject != "global":
        query = query.where(usage_daily.c[kind] == name)
    return int(connection.scalar(query) or 0)


def budgets_spent(connection: sa.Connection, today: datetime.date) -> list[tuple[Budget, int]]:
    """Every budget, and what its present day or month has cost so far."""
    return [(it, budget_spent(connection, it, today)) for it in all_budgets(connection)]


def budget_spent(connection: sa.Connection, budget: Budget, today: datetime.date) -> int:
    since = today if budget.period == "day" else today.replace(day=1)
    return spent(connection, budget.subject, since)


def requests(
    connection: sa.Connection, outcome: str = "", before: str = "", limit: int = 100
) -> list[Row]:
    """Single requests, the youngest first; `before` is the id to go on from."""
    query = sa.select(ledger).order_by(ledger.c.id.desc()).limit(limit)
    if outcome:
        query = query.where(ledger.c.outcome == sa.literal(outcome, literal_execute=True))
    if before:
        query = query.where(ledger.c.id < before)
    return [Row(**row._mapping) for row in connection.execute(query)]


def prune(connection: sa.Connection, before_id: str) -> int:
    """Forgets the oldest rows below an id, some thousands at a time; their sums stay."""
    old = sa.select(ledger.c.id).where(ledger.c.id < before_id).order_by(ledger.c.id)
    gone = connection.execute(ledger.delete().where(ledger.c.id.in_(old.limit(PRUNE_ROWS))))
    return gone.rowcount


def forecast_now(connection: sa.Connection) -> Forecast:
    """What the present month will have cost, over everything."""
    now = datetime.datetime.now(datetime.UTC)
    return forecast(_daily_cost(connection, now.date() - datetime.timedelta(days=62)), now)


def _daily_cost(connection: sa.Connection, since: datetime.date) -> dict[datetime.date, int]:
    query = sa.select(usage_daily.c.day, sa.func.sum(usage_daily.c.cost).label("cost"))
    query = query.where(usage_daily.c.day >= since.isoformat()).group_by(usage_daily.c.day)
    return {
        datetime.date.fromisoformat(row.day): int(row.cost) for row in connection.execute(query)
    }
