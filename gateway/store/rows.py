"""The few statements that the two databases spell differently, and the clock of the rows."""

import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

DAY_MS = 86_400_000
MANY = 256  # rows of one statement; SQLite takes 32,766 values


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def insert(dialect: sa.Dialect, table: sa.Table) -> sqlite.Insert:
    """An insert that has `on_conflict_…`; the two dialects' classes have the same methods."""
    is_postgres = dialect.name == "postgresql"
    return cast(sqlite.Insert, (postgresql if is_postgres else sqlite).insert(table))


def put(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """Inserts the row, or overwrites the one with its primary key."""
    statement = insert(connection.dialect, table).values(row)
    rest = {name: statement.excluded[name] for name in row if not table.c[name].primary_key}
    connection.execute(statement.on_conflict_do_update(index_elements=_key(table), set_=rest))


def put_absent(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Inserts the row unless its primary key is taken; says whether it did."""
    statement = insert(connection.dialect, table).values(row)
    statement = statement.on_conflict_do_nothing(index_elements=_key(table))
    # Not by rowcount, which psycopg has forgotten by the time it is asked.
    return connection.execute(statement.returning(*table.primary_key)).first() is not None


def insert_many(
    connection: sa.Connection, compiled: SQLCompiler, rows: Sequence[dict[str, Any]]
) -> int:
    """The insert of one row for many of plain texts and integers. How many rows it changed.

    SQLAlchemy would look at every value, and SQLite's driver let another thread go first after
    every single row: so its statements take many, in few sizes, as each is prepared once.
    """
    if compiled.positiontup is None:
        return connection.exec_driver_sql(compiled.string, list(rows)).rowcount
    in_order = itemgetter(*compiled.positiontup)
    num_changed = start = 0
    while size := min(MANY, 1 << (len(rows) - start).bit_length() >> 1):
        values = chain.from_iterable(map(in_order, rows[start : start + size]))
        text = _for_many(compiled.string, len(compiled.positiontup), size)
        num_changed += connection.exec_driver_sql(text, tuple(values)).rowcount
        start += size
    return num_changed


@lru_cache(maxsize=64)
def _for_many(statement: str, num_values: int, size: int) -> str:
    head, values, tail = statement.partition(f"({', '.join('?' * num_values)})")
    return head + ", ".join([values] * size) + tail


def _key(table: sa.Table) -> list[str]:
    return [column.name for column in table.primary_key]
