"""The few statements that the two databases spell differently, and the clock of the rows."""

import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler


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
    result = connection.execute(statement.on_conflict_do_nothing(index_elements=_key(table)))
    return result.rowcount > 0


def execute_many(
    connection: sa.Connection, compiled: SQLCompiler, rows: Sequence[dict[str, Any]]
) -> None:
    """The statement for each row of plain texts and integers, which the drivers take as they are.

    SQLAlchemy would look at every value, for half of what writing a row costs.
    """
    if compiled.positiontup is None:
        connection.exec_driver_sql(compiled.string, list(rows))
    else:
        in_order = itemgetter(*compiled.positiontup)
        connection.exec_driver_sql(compiled.string, [in_order(row) for row in rows])


def _key(table: sa.Table) -> list[str]:
    return [column.name for column in table.primary_key]
