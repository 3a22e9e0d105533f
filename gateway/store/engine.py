"""The open store: one database, two doors.

Functions over the store are plain and synchronous and take a connection inside a transaction, so
that the CLI and the admin API call the same ones: the CLI by `begin`, the gateway by `read` and
`write`, which run them in threads of the store's own and never hold up the event loop. Writes have
one thread, so a batch of ledger rows never stands between a reader and its row.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import sqlalchemy as sa

from gateway.errors import Unavailable
from gateway.store.migrations import upgrade

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2  # threads
BUSY_S = 5.0  # how long a writer waits for another process's lock on SQLite
TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 10_000}  # PostgreSQL's: [s], [ms]


class Store:
    """Made by `open`. The two databases behave alike but for how a change is noticed."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.errors = (sa.exc.DBAPIError, engine.dialect.loaded_dbapi.Error)  # it does not answer
        self._writing = engine.execution_options(write=True)
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._readers = ThreadPoolExecutor(READERS, "store-read")

    @classmethod
    def open(cls, url: str) -> Self:
        """Opens `sqlite:///PATH` or `postgresql://…`, makes what is missing, migrates.

        Several processes may do so at once. Raises Unavailable when the database cannot be used.
        """
        store = cls(make_engine(url))
        try:
            with store.begin(write=True) as connection:
                upgrade(connection)
        except sa.exc.DBAPIError as error:
            store.close()
            raise Unavailable(f"the store cannot be opened: {error.orig}") from error
        except Unavailable:
            store.close()
            raise
        return store

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """A transaction for the calling thread, committed at the end unless an error leaves it."""
        with (self._writing if write else self.engine).begin() as connection:
            yield connection

    async def read(
        self, do: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`do(connection, *args)` in a reader's thread."""
        return await self._in_thread(self._readers, lambda: self._do(False, do, args, kwargs))

    async def write(
        self, do: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`do(connection, *args)` in the writer's thread, committed when it returns."""
        return await self._in_thread(self._writer, lambda: self._do(True, do, args, kwargs))

    async def _in_thread(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _do(self, write: bool, do: Callable[..., T], args: Any, kwargs: Any) -> T:
        with self.begin(write=write) as connection:
            return do(connection, *args, **kwargs)

    def close(self) -> None:
        """Waits for what is running, not for what is queued."""
        self._writer.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self.engine.dispose()


def make_engine(url: str) -> sa.Engine:
    """Connects to nothing yet. Raises Unavailable for what is no URL of a store."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
            return sa.create_engine(parsed, pool_pre_ping=True, connect_args=TIMEOUTS)
        if parsed.get_backend_name() != "sqlite" or not parsed.database:
            raise Unavailable("store.url: a store is sqlite:///PATH or postgresql://…")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    except (sa.exc.ArgumentError, ImportError, OSError) as error:
        raise Unavailable(f"store.url: {error}") from error
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where the driver does
    connection.execute("PRAGMA synchronous = NORMAL")
    end = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # SQLite's own timeout does not hold for this switch
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes its lock at once: one that began as a reader could not wait for it.
    is_write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
