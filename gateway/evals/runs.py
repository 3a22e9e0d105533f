"""Runs of evals in the store: a run holds its whole eval, an item is one answer with its scores."""

import secrets
from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.errors import NotFound
from gateway.evals.definition import Eval
from gateway.store.rows import now_ms
from gateway.store.tables import eval_items as items
from gateway.store.tables import eval_runs as runs


class Run(msgspec.Struct, frozen=True):
    """`trust`: judge → kappa. `releases`: family → the release that was asked all along."""

    id: str
    eval: Eval
    trust: dict[str, float] = {}
    releases: dict[str, str] = {}
    finished_at: int | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or the error instead of one; `cost` in nano-dollars."""

    target: str
    case: str
    sample: int
    answer: str = ""
    error: str = ""
    scores: dict[str, float] = {}
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0
    total_us: int = 0


def start_run(
    connection: sa.Connection, it: Eval, trust: dict[str, float], releases: dict[str, str]
) -> Run:
    run = Run(secrets.token_hex(4), it, trust, releases)
    kept = {"eval": it, "trust": trust, "releases": releases}
    connection.execute(
        runs.insert().values(
            id=run.id, name=it.name, hash=it.hash, definition=msgspec.to_builtins(kept),
            created_at=now_ms(),
        )
    )  # fmt: skip
    return run


def unfinished(connection: sa.Connection, it: Eval) -> Run | None:
    """The youngest run of just this eval that was not ended."""
    query = (
        sa.select(runs.c.id)
        .where(runs.c.hash == it.hash, runs.c.finished_at.is_(None))
        .order_by(runs.c.created_at.desc())
    )
    found = connection.scalar(query)
    return None if found is None else read_run(connection, found)


def read_run(connection: sa.Connection, name: str) -> Run:
    """Raises NotFound."""
    row = connection.execute(sa.select(runs).where(runs.c.id == name)).first()
    if row is None:
        raise NotFound(f"there is no run {name!r}")
    kept = {**row.definition, "id": row.id, "finished_at": row.finished_at}
    return msgspec.convert(kept, Run)


def finish(connection: sa.Connection, run: str) -> None:
    connection.execute(runs.update().where(runs.c.id == run).values(finished_at=now_ms()))


def put_item(connection: sa.Connection, run: str, item: Item) -> None:
    """In the place of an earlier try."""
    row = {"run": run, **msgspec.to_builtins(item)}
    keys = ("run", "target", "case", "sample")
    connection.execute(items.delete().where(*(items.c[name] == row[name] for name in keys)))
    connection.execute(items.insert().values(row))


def read_items(connection: sa.Connection, run: str) -> list[Item]:
    names = Item.__struct_fields__
    rows = connection.execute(sa.select(*(items.c[it] for it in names)).where(items.c.run == run))
    return [Item(**dict(zip(names, row, strict=True))) for row in rows]


def list_runs(connection: sa.Connection) -> list[dict[str, Any]]:
    """The youngest first."""
    counted = sa.select(sa.func.count()).where(items.c.run == runs.c.id).scalar_subquery()
    query = sa.select(
        runs.c.id, runs.c.name, runs.c.created_at, runs.c.finished_at, counted.label("items")
    ).order_by(runs.c.created_at.desc())
    return [dict(row) for row in connection.execute(query).mappings()]
