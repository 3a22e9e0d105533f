"""Opening: migrations, many at once, older and newer stores; two doors to one database."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway.errors import Unavailable
from gateway.store import Store
from gateway.store.tables import metadata, topics


def test_migrations_lead_to_the_tables(store: Store) -> None:
    with store.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_many_may_open_an_empty_store_at_once(url: str) -> None:
    program = "import sys; from gateway.store import Store; Store.open(sys.argv[1]).close()"
    children = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [child.communicate()[1].decode() for child in children]
    assert errors == [""] * 3


def test_a_newer_store_is_refused(url: str) -> None:
    store = Store.open(url)
    with store.begin(write=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(Unavailable, match="newer"):
        Store.open(url)


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "not-a-database").write_text("no" * 1000)
    with pytest.raises(Unavailable, match="not a database"):
        Store.open(f"sqlite:///{tmp_path / 'not-a-database'}")
    for url in ("mysql://localhost/x", "sqlite://", "nonsense"):
        with pytest.raises(Unavailable, match=r"store\.url"):
            Store.open(url)


def test_an_error_undoes_the_transaction(store: Store) -> None:
    def fail(connection: sa.Connection) -> None:
        connection.execute(topics.insert().values(name="x", version=1))
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(store.write(fail))
    with store.begin() as connection:
        assert connection.execute(sa.select(topics)).all() == []


def test_a_long_write_holds_up_no_reader_and_no_loop(store: Store) -> None:
    async def scene() -> None:
        writing, done = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def write(connection: sa.Connection) -> None:
            connection.execute(topics.insert().values(name="x", version=1))
            loop.call_soon_threadsafe(writing.set)
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result()

        task = asyncio.create_task(store.write(write))
        await writing.wait()
        assert await store.read(lambda c: c.execute(sa.select(topics)).all()) == []
        done.set()
        await task
        assert len(await store.read(lambda c: c.execute(sa.select(topics)).all())) == 1

    asyncio.run(scene())
