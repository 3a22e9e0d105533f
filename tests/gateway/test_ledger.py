"""Every request that was let in is in the ledger once: settled ones exact, killed ones found."""

import asyncio
import contextlib
import datetime
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from gateway import ledger as module
from gateway.call import Call, Principal, Usage
from gateway.config import Store as StoreConfig
from gateway.errors import Unavailable
from gateway.journal import Journal
from gateway.ledger import Ledger
from gateway.store import Store, usage

TODAY = datetime.datetime.now(datetime.UTC).date()


def call(name: str, **fields: Any) -> Call:
    made = Call(
        name, "chat", {}, 100, {}, principal=Principal(key_id="k1", team="t1"), family="f",
        release="f-1", bound_tokens=50, usage=Usage(30, 10, 20, "upstream"), finish="stop",
        outcome="ok",
    )  # fmt: skip
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path / 'glassgate.db'}")
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(journal=str(tmp_path / "journal"), retention_days=30)


@contextlib.asynccontextmanager
async def opened(store: Store, config: StoreConfig) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(store, config)
    try:
        yield ledger
    finally:
        await ledger.close()


def rows(store: Store) -> dict[str, usage.Row]:
    with store.begin() as connection:
        return {row.request_id: row for row in usage.requests(connection)}


def test_a_flush_does_not_chase_what_comes_after_it(
    store: Store, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        async with opened(store, config) as ledger:
            ledger.settle(ledger.begin(first := call("r0"), cost=5), first, 5)
            write, num_writes = store.write, 0

            async def counted(*args: Any) -> Any:
                nonlocal num_writes
                num_writes += 1
                done = await write(*args)
                if num_writes < 20:
                    ledger.settle(ledger.begin(late := call(f"r{num_writes}"), 5), late, 5)
                return done

            with monkeypatch.context() as patch:
                patch.setattr(store, "write", counted)
                await ledger.flush()
            assert num_writes == 1

    asyncio.run(scene())
    assert len(rows(store)) == 2


def test_a_settled_request_is_a_row(store: Store, config: StoreConfig) -> None:
    attempts = [
        SimpleNamespace(target=SimpleNamespace(name=name), started=0.0, latency=0.25, ttft=ttft)
        for name, ttft in (("a", None), ("b", 0.5))
    ]

    async def scene() -> None:
        async with opened(store, config) as ledger:
            made = call("r1", attempts=attempts)
            attempts[-1].started = made.started + 1
            row = ledger.begin(made, cost=5)
            assert ledger.stats().open_requests == 1
            ledger.settle(row, made, cost=70)
            assert rows(store) == {}
            await ledger.flush()
            assert ledger.stats()[:4] == (0, 0, 1, 0)
            assert await ledger.spent("team:t1", TODAY) == 70

    asyncio.run(scene())
    row = rows(store)["r1"]
    assert (row.key, row.team, row.family, row.release) == ("k1", "t1", "f", "f-1")
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (30, 10, 20)
    assert (row.usage_source, row.cost, row.finish, row.outcome) == ("upstream", 70, "stop", "ok")
    assert (row.target, row.attempts, row.upstream_us) == ("b", 2, 500_000)
    assert row.first_token_us == 1_500_000
    assert not list(Path(config.journal).iterdir())


def test_a_client_may_name_its_requests_alike(store: Store, config: StoreConfig) -> None:
    async def scene() -> None:
        async with opened(store, config) as ledger:
            for _ in range(3):
                made = call("same")
                ledger.settle(ledger.begin(made, 0), made, 1)

    asyncio.run(scene())
    with store.begin() as connection:
        assert usage.spent(connection, "global", TODAY) == 3


def test_names_and_costs_are_bounded(store: Store, config: StoreConfig) -> None:
    async def scene() -> None:
        async with opened(store, config) as ledger:
            made = call("r\0\ud800" + "x" * 999)
            ledger.settle(ledger.begin(made, 0), made, 10**30)

    asyncio.run(scene())
    (row,) = rows(store).values()
    assert row.request_id.startswith("r\\x00\\ud800xxx")
    assert len(row.request_id) == module.MAX_TEXT
    assert row.cost == module.MAX


KILLED = """
import asyncio, os, signal, sys
from gateway.call import Call, Principal, Usage
from gateway.config import Store as StoreConfig
from gateway.ledger import Ledger
from gateway.store import Store

async def main():
    store = Store.open(sys.argv[1])
    ledger = await Ledger.open(store, StoreConfig(journal=sys.argv[2]))
    for n in range(40):
        call = Call(f"r{n}", "chat", {}, 1, {}, bound_tokens=50, usage=Usage(30, 0, 20, "upstream"),
                    finish="stop", outcome="ok", principal=Principal(key_id="k1"))
        row = ledger.begin(call, cost=5)
        if n % 4:
            ledger.settle(row, call, cost=70)
        if n == 20:
            await ledger.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_answered(
    store: Store, config: StoreConfig, tmp_path: Path
) -> None:
    url = store.engine.url.render_as_string()
    child = subprocess.run([sys.executable, "-c", KILLED, url, config.journal], check=False)
    assert child.returncode == -9
    assert len(rows(store)) == 15  # what was moved before the end

    async def start() -> None:
        async with opened(store, config):
            pass

    left = [(path, path.read_bytes()) for path in Path(config.journal).iterdir()]
    asyncio.run(start())
    found = rows(store)
    assert set(found) == {f"r{n}" for n in range(40)}
    for n in range(40):
        row = found[f"r{n}"]
        done = ("ok", "upstream", 30, 20, 70)
        killed = ("killed", "estimated", 50, 0, 5)
        told = (row.outcome, row.usage_source, row.prompt_tokens, row.completion_tokens, row.cost)
        assert told == (done if n % 4 else killed)
    assert not list(Path(config.journal).iterdir())

    for path, data in left:  # as if the machine had died before the file was removed
        path.write_bytes(data)
    asyncio.run(start())
    assert rows(store) == found
    with store.begin() as connection:
        assert usage.spent(connection, "key:k1", TODAY) == 30 * 70 + 10 * 5
        assert len(usage.requests(connection, "killed")) == 10


def test_unreadable_lines_are_counted_and_the_rest_is_kept(
    store: Store, config: StoreConfig
) -> None:
    dead = Journal(Path(config.journal))
    good = json.dumps(
        {"id": "1", "request_id": "r", "started_at": 1, "route": "chat", "outcome": "ok"}
    )
    for line in (b"{\n", good.encode() + b"\n", b'{"id": 3}\n', b"torn"):
        dead.append(line)
    for segment in dead.segments:
        segment.close()

    async def scene() -> int:
        async with opened(store, config) as ledger:
            return ledger.stats().torn

    assert asyncio.run(scene()) == 3
    assert set(rows(store)) == {"r"}


def test_a_silent_store_delays_rows_and_nothing_else(
    store: Store, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.001)
    monkeypatch.setattr(module, "RETRY_S", 0.001)
    is_silent = [True]

    def post(connection: sa.Connection, segment: Any) -> Any:
        if is_silent:
            raise sa.exc.OperationalError("INSERT", {}, Exception("gone"))
        return real(connection, segment)

    real = module._post_chunk
    monkeypatch.setattr(module, "_post_chunk", post)

    async def scene() -> None:
        async with opened(store, config) as ledger:
            task = asyncio.create_task(ledger.run())
            made = call("r1")
            ledger.settle(ledger.begin(made, 0), made, 1)
            async with asyncio.timeout(10):
                while ledger.stats().failures < 2:  # noqa: ASYNC110 - the task has no event for it
                    await asyncio.sleep(0.001)
                is_silent.clear()
                while not ledger.stats().written_rows:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            task.cancel()

    asyncio.run(scene())
    assert set(rows(store)) == {"r1"}


def test_too_much_backlog_refuses_new_requests(
    store: Store, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BACKLOG", 100)

    async def scene() -> None:
        async with opened(store, config) as ledger:
            made = call("r1")
            row = ledger.begin(made, 0)
            with pytest.raises(Unavailable) as caught:
                ledger.begin(call("r2"), 0)
            assert caught.value.code == "ledger_full"
            ledger.settle(row, made, 1)
            await ledger.flush()
            made = call("r3")
            ledger.settle(ledger.begin(made, 0), made, 1)

    asyncio.run(scene())
    assert set(rows(store)) == {"r1", "r3"}


def test_a_full_disk_refuses_new_requests_and_settles_old_ones(
    store: Store, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(line: bytes) -> Any:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        async with opened(store, config) as ledger:
            made = call("r1")
            row = ledger.begin(made, 0)
            monkeypatch.setattr(ledger._journal, "append", refuse)
            with pytest.raises(Unavailable, match="No space left"):
                ledger.begin(call("r2"), 0)
            ledger.settle(row, made, 7)

    asyncio.run(scene())
    assert rows(store)["r1"].cost == 7


def test_old_rows_are_forgotten(store: Store, config: StoreConfig) -> None:
    old = usage.Row(id="0" * 12, request_id="old", started_at=0, route="chat", outcome="ok", cost=3)

    async def scene() -> None:
        async with opened(store, config) as ledger:
            await store.write(usage.post, [old])
            made = call("new")
            ledger.settle(ledger.begin(made, 0), made, 1)
            await ledger.flush()
            await ledger._prune()

    asyncio.run(scene())
    assert set(rows(store)) == {"new"}
    with store.begin() as connection:
        assert usage.spent(connection, "global", datetime.date(1970, 1, 1)) == 4
