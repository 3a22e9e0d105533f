"""What a process remembers follows the store, and a key in use costs no look-up."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy as sa

from gateway.errors import Unavailable
from gateway.store import Store, key_cache, keys, labels, teams
from gateway.store import mirror as mirror_module
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey
from gateway.store.mirror import Mirror

ME = By("test")


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - it is another thread that makes it true
            await asyncio.sleep(0.01)


def test_changes_of_another_process_arrive(store: Store, url: str) -> None:
    other = Store.open(url)

    async def scene() -> None:
        mirror = await Mirror.open(store)
        assert mirror.keys.is_empty
        task = asyncio.create_task(mirror.run())
        key, _ = await other.write(keys.create, ME, OPERATOR, NewKey(name="alice"))
        await other.write(labels.promote, ME, "release", "chat", "production", "chat-1")
        await other.write(labels.promote, ME, "prompt", "hello", "production", "3")
        await other.write(labels.set_weights, ME, "chat", {"production": 1.0})
        await other.write(teams.put_team, ME, "search", "small")
        for subject in ("team:search", "global", "key:x"):
            new = teams.NewBudget(subject=subject, period="day", hard=Decimal(1))
            await other.write(teams.put_budget, ME, new)

        async def has_all() -> bool:
            return not mirror.keys.is_empty and len(mirror.budgets) == 3

        await until(has_all)
        assert mirror.labels == {"chat": {"production": "chat-1"}}
        assert mirror.prompt_labels == {"hello": {"production": "3"}}
        assert mirror.weights == {"chat": {"production": 1.0}}
        assert mirror.teams["search"].limits == "small"
        assert [it.hard for it in mirror.budgets["team:search"]] == [10**9]

        assert await mirror.keys.get(key.id) == key
        await other.write(keys.revoke, ME, key.id)

        async def is_revoked() -> bool:
            known = await mirror.keys.get(key.id)
            return known is not None and known.revoked_at is not None

        await until(is_revoked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(scene())
    finally:
        other.close()


def test_a_lost_connection_is_made_again(
    postgres: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror_module, "RETRY_S", 0.01)
    store = Store.open(postgres)

    async def scene() -> None:
        mirror = await Mirror.open(store)
        task = asyncio.create_task(mirror.run())
        for round_, name in enumerate(("before", "after")):
            await store.write(teams.put_team, ME, name)

            async def has_it(name: str = name) -> bool:
                return name in mirror.teams

            await until(has_it)
            if round_ == 0:
                with psycopg.connect(postgres) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND query LIKE 'LISTEN%'"
                    )

                async def is_told() -> bool:
                    return "cannot be watched" in caplog.text

                await until(is_told)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    store.close()


def test_a_key_is_looked_up_once(store: Store) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async def scene() -> None:
        key, _ = await store.write(keys.create, ME, OPERATOR, NewKey(name="alice"))
        cache = (await Mirror.open(store)).keys
        sa.event.listen(store.engine, "before_cursor_execute", note)
        for key_id in (key.id, "unknown"):
            for _ in range(3):
                await cache.get(key_id)
            assert len([it for it in statements if it.startswith("SELECT")]) == 1
            statements.clear()
        cache.used(key.id, 5)
        await cache.flush()
        assert (await store.read(keys.find, key.id)).last_used_at == 5
        sa.event.remove(store.engine, "before_cursor_execute", note)

    asyncio.run(scene())


def test_a_new_key_is_not_taken_for_an_unknown_one(store: Store) -> None:
    async def scene() -> None:
        cache = (await Mirror.open(store)).keys
        assert await cache.get("alice") is None
        key = keys.Key(
            id="alice", name="a", team="", scopes=(), families=(), limits="", hash="", created_at=0
        )
        await store.write(keys.insert_key, key)
        await cache.refresh()
        assert await cache.get("alice") == key

    asyncio.run(scene())


def test_look_ups_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "LOOK_UPS", 2)

    async def scene() -> list[object]:
        cache = (await Mirror.open(store)).keys
        return await asyncio.gather(
            *(cache.get(f"unknown-{n}") for n in range(5)), return_exceptions=True
        )

    outcomes = asyncio.run(scene())
    assert outcomes.count(None) == 2
    assert sum(isinstance(it, Unavailable) for it in outcomes) == 3


def test_what_was_read_earlier_never_comes_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        mirror = await Mirror.open(store)
        has_read, read = asyncio.Event(), store.read

        async def slow(do: Callable[..., object], *args: object) -> object:
            found = await read(do, *args)
            monkeypatch.setattr(store, "read", read)
            has_read.set()
            await asyncio.sleep(0.02)  # the second would overtake it here
            return found

        monkeypatch.setattr(store, "read", slow)
        first = asyncio.create_task(mirror.refresh({"labels"}))
        await has_read.wait()
        await store.write(labels.promote, ME, "release", "chat", "production", "chat-1")
        await asyncio.gather(first, mirror.refresh({"labels"}))
        assert mirror.labels == {"chat": {"production": "chat-1"}}

    asyncio.run(scene())
