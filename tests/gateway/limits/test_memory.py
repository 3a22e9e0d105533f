"""How the counts of one process stay bounded without anybody's being reset."""

import asyncio
from typing import Any

import pytest

from gateway.limits import NOTHING, Amounts, Demand, Grant, MemoryLimiter, Refusal, Rule
from gateway.limits.memory import MAX_IDLE

pytestmark = pytest.mark.anyio

BUCKET = Rule("requests_per_minute", 60)
SLOT = Rule("concurrent", 2)
DAY = Rule("cost_per_day", 1_000, "closed")


async def fill(limiter: MemoryLimiter, prefix: str, number: int) -> None:
    for n in range(number):
        grant = await limiter.reserve([Demand(f"{prefix}:{n}", BUCKET, 1)], 60)
        assert isinstance(grant, Grant)


async def test_idle_counts_are_forgotten_and_others_are_not(clock: Any) -> None:
    limiter = MemoryLimiter(clock_ms=clock.ms, wall=clock.wall)
    lasting = [
        Demand("empty", BUCKET, 60),
        Demand("held", SLOT, 2),
        Demand("spent", DAY, 900),
    ]
    assert isinstance(await limiter.reserve(lasting, 3600), Grant)
    await fill(limiter, "idle", MAX_IDLE)
    clock.advance(2_000)  # all but the empty bucket are full again
    await fill(limiter, "busy", MAX_IDLE)
    assert len(limiter) <= MAX_IDLE + len(lasting) + 2
    for demand in lasting:
        assert isinstance(await limiter.reserve([demand], 60), Refusal)


async def test_a_spent_window_is_forgotten_when_it_is_over(clock: Any) -> None:
    limiter = MemoryLimiter(clock_ms=clock.ms, wall=clock.wall)
    grant = await limiter.reserve([Demand("k", DAY, 900)], 3600)
    assert isinstance(grant, Grant)
    await limiter.settle(grant, Amounts(cost=900))
    await fill(limiter, "idle", MAX_IDLE)
    clock.advance(86_400_000)
    await fill(limiter, "busy", MAX_IDLE)
    assert len(limiter) <= MAX_IDLE + 2


async def test_full_of_counts_in_use_it_refuses_new_subjects_only(clock: Any) -> None:
    limiter = MemoryLimiter(clock_ms=clock.ms, wall=clock.wall, max_cells=3)
    await fill(limiter, "k", 3)
    refusal = await limiter.reserve([Demand("new", BUCKET, 1)], 60)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.demand.subject) == ("full", "new")
    await fill(limiter, "k", 3)
    clock.advance(2_000)
    await fill(limiter, "new", 1)
    assert len(limiter) <= 3


async def test_settling_after_a_restart_does_not_hide_what_the_ledger_knows(clock: Any) -> None:
    async def seed(subject: str, since: object) -> int:
        return 950

    grant = Grant("of-before", (Demand("k", DAY, 100),), ("2026-08-31",), 60.0)
    limiter = MemoryLimiter(seed=seed, clock_ms=clock.ms, wall=clock.wall)
    await limiter.settle(grant, Amounts(cost=70))
    assert not await limiter.renew(grant)
    probe = await limiter.reserve([Demand("k", DAY, 0)], 60)
    assert isinstance(probe, Grant)
    assert probe.levels[0][0] == 50
    await limiter.settle(probe, NOTHING)


async def test_however_many_wait_the_ledger_is_asked_once(clock: Any) -> None:
    asked = []

    async def seed(subject: str, since: object) -> int:
        asked.append(subject)
        await asyncio.sleep(0)
        return 0

    limiter = MemoryLimiter(seed=seed, clock_ms=clock.ms, wall=clock.wall)
    await asyncio.gather(*(limiter.reserve([Demand("k", DAY, 1)], 60) for _ in range(8)))
    assert asked == ["k"]
