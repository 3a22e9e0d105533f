"""Which replica is asked, and how a lost one comes back. All in virtual time."""

import asyncio
import contextlib
from collections import Counter
from typing import Any

from gateway.routing.balance import FORGET_S, MAX_HOLD_S, MAX_REPLICAS, Lease, Pool
from gateway.upstream import Target, UpstreamError

URLS = ("http://a/v1", "http://b/v1", "http://c/v1")
RESET = UpstreamError("reset")
TARGET = Target(name="t", model="m", base_urls=URLS)
ALONE = Target(name="t", model="m", base_urls=URLS[:1])


def pick(pool: Pool, target: Target, avoid: tuple[str, ...] = ()) -> Lease:
    lease = pool.pick(target, avoid)
    assert lease is not None
    return lease


def fail(pool: Pool, target: Target, error: UpstreamError, times: int = 1) -> None:
    for _ in range(times):
        with contextlib.suppress(UpstreamError), pick(pool, target):
            raise error


async def serve(
    pool: Pool, target: Target, seconds: dict[str, float], counts: Counter[str]
) -> None:
    lease = pick(pool, target)
    counts[lease.base_url] += 1
    with lease:
        await asyncio.sleep(seconds[lease.base_url])


def test_load_is_even_among_equals(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        counts: Counter[str] = Counter()
        equal = dict.fromkeys(URLS, 1.0)
        await asyncio.gather(*(serve(pool, TARGET, equal, counts) for _ in range(300)))
        assert all(85 <= count <= 115 for count in counts.values())

    run_virtual(test)


def test_a_slow_replica_gets_less(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        counts: Counter[str] = Counter()
        seconds = dict(zip(URLS, (0.1, 0.1, 1.0), strict=True))

        async def client() -> None:
            for _ in range(50):
                await serve(pool, TARGET, seconds, counts)

        await asyncio.gather(*(client() for _ in range(6)))
        assert 0 < counts[URLS[2]] < counts[URLS[0]] / 3

    run_virtual(test)


def test_failing_fast_draws_no_traffic(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        counts: Counter[str] = Counter()
        for _ in range(200):
            lease = pick(pool, TARGET)
            counts[lease.base_url] += 1
            with contextlib.suppress(UpstreamError), lease:
                await asyncio.sleep(0.5)
                if lease.base_url == URLS[0] and counts[URLS[0]] < 5:
                    raise RESET
        assert counts[URLS[0]] < counts[URLS[1]] / 2

    run_virtual(test)


def test_a_failed_replica_is_avoided_if_another_can_be_asked(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        assert pick(pool, TARGET, URLS[:2]).base_url == URLS[2]
        assert pick(pool, TARGET, URLS).base_url in URLS

    run_virtual(test)


def test_held_until_the_time_is_over(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        for wait, held in ((2.0, 2.0), (3600.0, MAX_HOLD_S)):
            fail(pool, ALONE, UpstreamError("status", status=429, retry_after=wait))
            assert pool.pick(ALONE) is None
            assert pool.held_for(ALONE) == held
            await asyncio.sleep(held)
            assert pool.pick(ALONE) is not None

    run_virtual(test)


def test_refusals_open_no_breaker(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        fail(pool, ALONE, UpstreamError("status", status=400), times=50)
        assert pool.pick(ALONE) is not None

    run_virtual(test)


def test_a_minute_of_outage(run_virtual: Any, fake_client: Any) -> None:
    async def test(pool: Pool) -> None:
        start = asyncio.get_running_loop().time()
        fake_client.is_up = lambda url: asyncio.get_running_loop().time() > start + 60
        fail(pool, ALONE, RESET, times=5)
        assert pool.pick(ALONE) is None
        assert 0 < pool.opens_in(ALONE) <= 10
        while not (lease := pool.pick(ALONE)):  # noqa: ASYNC110 - the time is virtual
            await asyncio.sleep(0.1)
        assert 60 < asyncio.get_running_loop().time() - start < 75
        assert len(fake_client.probes) <= 12
        with lease:
            assert pool.pick(ALONE) is None  # the trial is the only one
            lease.began()
            assert pool.pick(ALONE) is not None

    run_virtual(test)


def test_a_trial_that_fails_is_probed_again(run_virtual: Any, fake_client: Any) -> None:
    async def test(pool: Pool) -> None:
        fake_client.is_up = lambda url: True
        fail(pool, ALONE, UpstreamError("timeout_headers"), times=3)
        for _ in range(3):
            await asyncio.sleep(20)
            fail(pool, ALONE, RESET)
            assert pool.pick(ALONE) is None
        await asyncio.sleep(20)
        assert len(fake_client.probes) == 4
        with pick(pool, ALONE):
            pass
        await asyncio.sleep(100)
        assert len(fake_client.probes) == 4

    run_virtual(test)


def test_a_client_who_leaves_gives_the_trial_back(run_virtual: Any, fake_client: Any) -> None:
    async def test(pool: Pool) -> None:
        fake_client.is_up = lambda url: True
        fail(pool, ALONE, RESET, times=5)
        await asyncio.sleep(2)
        trial = asyncio.create_task(serve(pool, ALONE, dict.fromkeys(URLS, 9.0), Counter()))
        await asyncio.sleep(1)
        assert pool.pick(ALONE) is None
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert pool.pick(ALONE) is not None

    run_virtual(test)


def test_what_nobody_asks_for_is_forgotten(run_virtual: Any, fake_client: Any) -> None:
    async def test(pool: Pool) -> None:
        fail(pool, ALONE, RESET, times=5)
        await asyncio.sleep(2 * FORGET_S)
        num_probes = len(fake_client.probes)
        await asyncio.sleep(2 * FORGET_S)
        assert len(fake_client.probes) == num_probes
        assert pool.pick(ALONE) is not None

    run_virtual(test)


def test_models_of_one_upstream_fail_apart(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        fail(pool, ALONE, RESET, times=5)
        assert pool.pick(ALONE) is None
        assert pool.pick(Target(name="t", model="other", base_urls=URLS[:1])) is not None

    run_virtual(test)


def test_what_is_known_is_bounded(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        for i in range(2 * MAX_REPLICAS):
            pick(pool, Target(name="t", model=str(i), base_urls=URLS[:1]))
        assert len(pool._replicas) == MAX_REPLICAS

    run_virtual(test)
