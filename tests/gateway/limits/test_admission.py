"""The queue: first come, first served per rule, bounded, and nobody lost when somebody leaves."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.limits import (
    NOTHING,
    Admission,
    Amounts,
    Demand,
    Grant,
    MemoryLimiter,
    QueuePolicy,
    Refusal,
    Rule,
)

pytestmark = pytest.mark.anyio

PATIENT = QueuePolicy("town", length=8, wait_s=60.0)
ONE = Rule("concurrent", 1)


def slot(subject: str = "global") -> list[Demand]:
    return [Demand(subject, ONE, 1)]


@pytest.fixture
def limiter(clock: Any) -> MemoryLimiter:
    return MemoryLimiter(clock_ms=clock.ms, wall=clock.wall)


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def held(admission: Admission, demands: Sequence[Demand]) -> Grant:
    grant = await admission.reserve(demands)
    assert isinstance(grant, Grant)
    return grant


async def queued(
    admission: Admission, number: int, demands: Sequence[Demand], queue: QueuePolicy = PATIENT
) -> list["asyncio.Task[Grant | Refusal]"]:
    """`number` more waiting tasks, each in line before the next comes."""
    tasks = []
    for _ in range(number):
        before = admission.num_waiting(queue.name)
        tasks.append(asyncio.create_task(admission.reserve(demands, queue)))
        await until(lambda: admission.num_waiting(queue.name) > before)  # noqa: B023 - at once
        await asyncio.sleep(0)
    return tasks


async def test_first_come_first_served(limiter: MemoryLimiter) -> None:
    served: list[int] = []
    admission = Admission(limiter)
    holder = await held(admission, slot())
    waiting = await queued(admission, 5, slot())
    for n, task in enumerate(waiting):
        task.add_done_callback(lambda _, n=n: served.append(n))
    for task in waiting:
        await admission.settle(holder, NOTHING)
        outcome = await task
        assert isinstance(outcome, Grant)
        holder = outcome
    assert served == [0, 1, 2, 3, 4]
    assert admission.num_waiting("town") == 0
    await admission.aclose()


async def test_nobody_passes_who_waits(limiter: MemoryLimiter) -> None:
    admission = Admission(limiter)
    holder = await held(admission, slot())
    (first,) = await queued(admission, 1, slot())
    settling = asyncio.create_task(admission.settle(holder, NOTHING))
    late = asyncio.create_task(admission.reserve(slot(), PATIENT))
    await asyncio.wait([settling, first])
    assert isinstance(first.result(), Grant)
    assert not late.done()
    await admission.settle(first.result(), NOTHING)
    assert isinstance(await late, Grant)
    await admission.aclose()


async def test_a_full_queue_refuses_at_once(limiter: MemoryLimiter) -> None:
    admission = Admission(limiter)
    await held(admission, slot())
    short = QueuePolicy("town", length=1, wait_s=60.0)
    (waiting,) = await queued(admission, 1, slot(), short)
    assert isinstance(await admission.reserve(slot(), short), Refusal)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert admission.num_waiting("town") == 0
    await admission.aclose()


async def test_at_the_deadline_it_is_the_refusal(limiter: MemoryLimiter) -> None:
    seen: list[str] = []
    admission = Admission(limiter, observe=lambda outcome, seconds: seen.append(outcome))
    await held(admission, slot())
    refusal = await admission.reserve(slot(), QueuePolicy("town", length=1, wait_s=0.01))
    assert isinstance(refusal, Refusal)
    assert refusal.demand == slot()[0]
    assert seen == ["refused"]
    await admission.aclose()


async def test_one_key_at_its_limit_delays_no_other(limiter: MemoryLimiter) -> None:
    admission = Admission(limiter)
    await held(admission, slot("key:a"))
    (waiting,) = await queued(admission, 1, slot("key:a"))
    assert isinstance(await admission.reserve(slot("key:b"), PATIENT), Grant)
    assert not waiting.done()
    waiting.cancel()
    await admission.aclose()


async def test_who_leaves_the_line_hands_on_the_turn(limiter: MemoryLimiter) -> None:
    seen: list[str] = []
    admission = Admission(limiter, observe=lambda outcome, seconds: seen.append(outcome))
    holder = await held(admission, slot())
    first, second = await queued(admission, 2, slot())
    first.cancel()
    await admission.settle(holder, NOTHING)
    assert isinstance(await second, Grant)
    assert first.cancelled()
    assert seen == ["cancelled", "granted"]
    probe = await limiter.reserve(slot(), 60)
    assert isinstance(probe, Refusal)  # held by the second and by nobody else
    await admission.aclose()


async def test_refused_by_another_rule_it_changes_lines(limiter: MemoryLimiter) -> None:
    admission = Admission(limiter)
    both = slot("key:a") + slot("global")
    key = await held(admission, slot("key:a"))
    everybody = await held(admission, slot("global"))
    (waiting,) = await queued(admission, 1, both)
    await admission.settle(key, NOTHING)
    await asyncio.sleep(0)
    assert not waiting.done()
    await admission.settle(everybody, NOTHING)
    assert isinstance(await waiting, Grant)
    await admission.aclose()


async def test_a_wait_that_cannot_end_in_time_is_not_begun(limiter: MemoryLimiter) -> None:
    admission = Admission(limiter)
    for rule in (Rule("requests_per_minute", 1), Rule("cost_per_day", 5, "closed")):
        await held(admission, [Demand("k", rule, rule.capacity)])
        refusal = await admission.reserve([Demand("k", rule, 1)], QueuePolicy("town", 8, 1.0))
        assert isinstance(refusal, Refusal)
    too_large = await admission.reserve([Demand("k", ONE, 2)], PATIENT)
    assert isinstance(too_large, Refusal)
    assert too_large.reason == "too_large"
    await admission.aclose()


async def test_the_head_comes_back_when_the_bucket_has_refilled(clock: Any) -> None:
    limiter = MemoryLimiter(clock_ms=clock.ms, wall=clock.wall)
    admission = Admission(limiter)
    rule = Rule("requests_per_minute", 6_000)  # one in 10 ms
    await held(admission, [Demand("k", rule, 6_000)])
    (waiting,) = await queued(admission, 1, [Demand("k", rule, 1)])
    clock.advance(10)
    assert isinstance(await waiting, Grant)
    await admission.aclose()


async def test_leases_of_long_requests_are_renewed_until_they_are_settled(clock: Any) -> None:
    renewed: list[str] = []
    twice = asyncio.Event()

    class Watched(MemoryLimiter):
        async def renew(self, grant: Grant) -> bool:
            renewed.append(grant.id)
            if renewed.count(long.id) >= 2:
                twice.set()
            return await super().renew(grant)

    admission = Admission(Watched(clock_ms=clock.ms, wall=clock.wall), lease_s=0.015)
    short = await held(admission, slot("key:short"))
    long = await held(admission, slot("key:long"))
    await admission.settle(short, Amounts())
    await twice.wait()
    assert set(renewed) == {long.id}
    assert admission.num_lapsed == 0
    clock.advance(1_000)
    await until(lambda: admission.num_lapsed > 0)
    await admission.aclose()
