"""Notices that something moved: a counter for each topic, and a way to wait for it.

Whoever changes a row of a topic counts it up in the same transaction. On SQLite a watcher polls
`PRAGMA data_version`, which costs microseconds and sees every other connection's commit. On
PostgreSQL it listens, and reads the counters twice a second in case a notification got lost.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import sqlalchemy as sa

from gateway.store.engine import Store
from gateway.store.rows import insert
from gateway.store.tables import topics

CHANNEL = "glassgate"
POLL_SQLITE_S = 0.2
POLL_POSTGRES_S = 0.5


def note(connection: sa.Connection, topic: str) -> int:
    """Counts a change of `topic`, seen by others once the transaction commits."""
    statement = insert(connection.dialect, topics).values(name=topic, version=1)
    version = connection.scalar(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"version": topics.c.version + 1}
        ).returning(topics.c.version)
    )
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
    return cast(int, version)


def versions(connection: sa.Connection) -> dict[str, int]:
    return {row.name: row.version for row in connection.execute(sa.select(topics))}


async def follow(store: Store) -> AsyncGenerator[set[str]]:
    """The topics that moved, each time that some did; at first all that ever moved.

    Raises one of `store.errors` when the store does not answer; then start anew.
    """
    watcher = _Watcher(store)
    pool = ThreadPoolExecutor(1, "store-watch")
    loop = asyncio.get_running_loop()
    try:
        while True:
            if moved := await loop.run_in_executor(pool, watcher.wait):
                yield moved
    finally:
        watcher.stopped.set()
        await loop.run_in_executor(pool, watcher.close)
        pool.shutdown()


class _Watcher:
    """Runs in a thread of its own and holds one connection."""

    def __init__(self, store: Store) -> None:
        self.stopped = threading.Event()
        self._store = store
        self._is_postgres = store.engine.dialect.name == "postgresql"
        self._connection: Any = None  # the driver's own
        self._data_version = -1
        self._seen: dict[str, int] = {}

    def wait(self) -> set[str]:
        """Waits for one poll at most. The topics that moved since the last call."""
        if self._connection is None:
            self._connection = self._listen()
        elif not self._has_news():
            return set()
        with self._store.begin() as connection:
            now = versions(connection)
        moved = {topic for topic, version in now.items() if version != self._seen.get(topic)}
        self._seen = now
        return moved

    def _listen(self) -> Any:
        connection = self._store.engine.raw_connection()
        connection.detach()  # it listens, so nobody else may get it from the pool
        driver: Any = connection.dbapi_connection
        if self._is_postgres:
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
        return driver

    def _has_news(self) -> bool:
        if self._is_postgres:
            for _ in self._connection.notifies(timeout=POLL_POSTGRES_S, stop_after=1):
                pass
            return True
        self.stopped.wait(POLL_SQLITE_S)
        before = self._data_version
        (self._data_version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return before != self._data_version

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
