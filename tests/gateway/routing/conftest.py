"""Virtual time, and an upstream client without a network, for tests of what waits."""

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gateway.routing.balance import Pool
from gateway.upstream import Target


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to whatever is due next, so that a minute of waiting takes none."""

    def __init__(self) -> None:
        super().__init__(_NoWait(self))
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class _NoWait(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for nothing"
        self._loop.now += max(timeout, 0)
        return super().select(0)


class FakeClient:
    """`is_up` says which base URLs answer a probe; attempts are the test's own business."""

    def __init__(self, is_up: Callable[[str], bool] = lambda url: False) -> None:
        self.is_up = is_up
        self.probes: list[tuple[float, str]] = []

    async def is_alive(self, target: Target, base_url: str, seconds: float) -> bool:
        self.probes.append((asyncio.get_running_loop().time(), base_url))
        return self.is_up(base_url)


@pytest.fixture
def fake_client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def run_virtual(
    fake_client: FakeClient,
) -> Callable[[Callable[[Pool], Coroutine[Any, Any, None]]], None]:
    """Run `test(pool)` in virtual time, on a pool over `fake_client`, seeded."""

    async def main(test: Callable[[Pool], Awaitable[None]]) -> None:
        pool = Pool(fake_client, rng=random.Random(0))  # type: ignore[arg-type]
        try:
            await test(pool)
        finally:
            await pool.close()

    def run(test: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main(test))

    return run
