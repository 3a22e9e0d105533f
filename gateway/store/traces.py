"""Traces in the store: written in batches, found by either id, forgotten after a while."""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from gateway.store.tables import traces

PRUNE_ROWS = 5000  # in one transaction
MAX_FOUND = 50  # requests of one trace


class Kept(msgspec.Struct, frozen=True):
    """A row; `id` is that of the ledger's row."""

    id: str
    trace_id: str
    request_id: str
    key: str
    data: bytes


def post(connection: sa.Connection, rows: Sequence[Kept]) -> None:
    connection.execute(traces.insert(), [msgspec.structs.asdict(row) for row in rows])


def find(connection: sa.Connection, name: str, key: str | None = None) -> list[bytes]:
    """The requests of that trace id, or of that request id, at most MAX_FOUND, the youngest first;
    this key's only, if one is given."""
    query = sa.select(traces.c.data).order_by(traces.c.id.desc()).limit(MAX_FOUND)
    if key is not None:
        query = query.where(traces.c.key == key)
    for column in (traces.c.trace_id, traces.c.request_id):
        if found := connection.scalars(query.where(column == name)).all():
            return [bytes(data) for data in found]
    return []


def prune(connection: sa.Connection, before_id: str, max_rows: int) -> int:
    """Forgets rows older than an id and those beyond `max_rows`, some thousands at a time."""
    youngest = sa.select(traces.c.id).order_by(traces.c.id.desc())
    last = connection.scalar(youngest.offset(max_rows).limit(1))
    gone = sa.or_(traces.c.id < before_id, traces.c.id <= (last or ""))
    old = sa.select(traces.c.id).where(gone).order_by(traces.c.id)
    done = connection.execute(traces.delete().where(traces.c.id.in_(old.limit(PRUNE_ROWS))))
    return done.rowcount
