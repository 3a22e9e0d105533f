"""What a limiter promises, one example each, on both."""

import asyncio
import datetime
from typing import Any

import pytest

from gateway.limits import NOTHING, Amounts, Demand, Grant, Limiter, Refusal, Rule

pytestmark = pytest.mark.anyio

REQUESTS = Rule("requests_per_minute", 60)
TOKENS = Rule("tokens_per_minute", 6_000)
SLOTS = Rule("concurrent", 2)
DAY = Rule("cost_per_day", 1_000, "closed")
MONTH = Rule("cost_per_month", 1_000, "closed")
LEASE_S = 30.0


async def granted(limiter: Limiter, *demands: Demand, lease_s: float = LEASE_S) -> Grant:
    outcome = await limiter.reserve(demands, lease_s)
    assert isinstance(outcome, Grant)
    return outcome


async def refused(limiter: Limiter, *demands: Demand) -> Refusal:
    outcome = await limiter.reserve(demands, LEASE_S)
    assert isinstance(outcome, Refusal)
    return outcome


async def test_refused_by_one_nothing_is_taken_from_any(open_limiter: Any, clock: Any) -> None:
    wanted = [Demand(f"key:{rule.kind}", rule, 1) for rule in (REQUESTS, TOKENS, SLOTS, DAY)]
    blocked = Demand("global", SLOTS, 2)
    async with open_limiter(clock) as limiter:
        holder = await granted(limiter, blocked)
        refusal = await refused(limiter, *wanted, Demand("global", SLOTS, 1))
        assert refusal.demand.subject == "global"
        await limiter.settle(holder, NOTHING)
        whole = await granted(
            limiter, *(Demand(d.subject, d.rule, d.rule.capacity) for d in wanted)
        )
        assert [left for left, _ in whole.levels] == [0, 0, 0, 0]


async def test_unused_comes_back_and_a_full_bucket_does_not_overflow(
    open_limiter: Any, clock: Any
) -> None:
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter, Demand("k", TOKENS, 6_000))
        clock.advance(30_000)  # half of it has refilled
        await limiter.settle(grant, Amounts(tokens=100))
        probe = await granted(limiter, Demand("k", TOKENS, 0))
        assert probe.levels == ((6_000, 0),)


async def test_debt_keeps_everybody_out_until_it_is_refilled(open_limiter: Any, clock: Any) -> None:
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter, Demand("k", TOKENS, 5_000))
        await limiter.settle(grant, Amounts(tokens=7_000))
        refusal = await refused(limiter, Demand("k", TOKENS, 0))
        assert refusal.retry_after_s == 10.0  # 1,000 missing at 100 a second
        clock.advance(9_999)
        assert (await refused(limiter, Demand("k", TOKENS, 0))).retry_after_s == 0.001
        clock.advance(1)
        await granted(limiter, Demand("k", TOKENS, 0))


async def test_the_longest_wait_of_all_rules_is_told(open_limiter: Any, clock: Any) -> None:
    both = Demand("k", REQUESTS, 60), Demand("k", TOKENS, 6_000)
    async with open_limiter(clock) as limiter:
        await granted(limiter, *both)
        refusal = await refused(limiter, Demand("k", REQUESTS, 1), Demand("k", TOKENS, 600))
        assert (refusal.demand.rule, refusal.retry_after_s) == (TOKENS, 6.0)
        clock.advance(6_000)
        await granted(limiter, Demand("k", REQUESTS, 1), Demand("k", TOKENS, 600))


async def test_more_than_a_rule_ever_has_is_refused_for_good(open_limiter: Any, clock: Any) -> None:
    for rule in (REQUESTS, TOKENS, DAY):
        async with open_limiter(clock) as limiter:
            refusal = await refused(limiter, Demand("k", rule, rule.capacity + 1))
            assert (refusal.reason, refusal.retry_after_s) == ("too_large", None)


async def test_a_lease_ends_to_the_millisecond(open_limiter: Any, clock: Any) -> None:
    both = Demand("k", SLOTS, 2), Demand("k", DAY, 1_000)
    async with open_limiter(clock) as limiter:
        await granted(limiter, *both, lease_s=10)
        clock.advance(9_999)
        assert (await refused(limiter, *both)).reason == "limited"
        clock.advance(1)
        await granted(limiter, *both)


async def test_renewed_it_lasts_and_ended_it_cannot_be_renewed(
    open_limiter: Any, clock: Any
) -> None:
    slots = Demand("k", SLOTS, 2)
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter, slots, lease_s=10)
        clock.advance(9_999)
        assert await limiter.renew(grant)
        clock.advance(9_999)
        await refused(limiter, slots)
        clock.advance(1)
        assert not await limiter.renew(grant)
        await granted(limiter, slots)
        await limiter.settle(grant, NOTHING)  # late: the slots are another's now
        await refused(limiter, slots)


async def test_cost_of_a_lost_lease_is_charged_when_it_is_settled_after_all(
    open_limiter: Any, clock: Any
) -> None:
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter, Demand("k", DAY, 900), lease_s=1)
        clock.advance(1_000)
        other = await granted(limiter, Demand("k", DAY, 900))
        assert other.levels[0][0] == 100
        await limiter.settle(grant, Amounts(cost=150))
        await limiter.settle(grant, Amounts(cost=150))  # told twice, charged once
        await limiter.settle(other, Amounts(cost=200))
        await limiter.settle(other, Amounts(cost=200))
        assert (await granted(limiter, Demand("k", DAY, 0))).levels[0][0] == 650


async def test_a_window_begins_with_what_was_spent(open_limiter: Any, clock: Any) -> None:
    asked = set()

    async def seed(subject: str, since: datetime.date) -> int:
        asked.add((subject, since.isoformat()))
        return 400

    wanted = Demand("team:a", DAY, 100), Demand("team:a", MONTH, 100)
    async with open_limiter(clock, seed=seed) as limiter:
        outcomes = await asyncio.gather(*(limiter.reserve(wanted, LEASE_S) for _ in range(8)))
        assert sum(isinstance(outcome, Grant) for outcome in outcomes) == 6
    assert asked == {("team:a", "2026-08-01"), ("team:a", "2026-08-31")}


async def test_midnight_opens_a_new_window_and_old_grants_settle_in_theirs(
    open_limiter: Any, clock: Any
) -> None:
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter, Demand("k", DAY, 1_000), lease_s=3600)
        assert (await refused(limiter, Demand("k", DAY, 1))).retry_after_s == 60.0
        clock.advance(60_000)
        await granted(limiter, Demand("k", DAY, 400))
        await limiter.settle(grant, Amounts(cost=900))
        assert (await granted(limiter, Demand("k", DAY, 0))).levels[0][0] == 600


async def test_a_changed_capacity_holds_from_the_next_request_on(
    open_limiter: Any, clock: Any
) -> None:
    async with open_limiter(clock) as limiter:
        await granted(limiter, Demand("k", Rule("requests_per_minute", 10), 10))
        await granted(limiter, Demand("k", Rule("requests_per_minute", 20), 10))
        refusal = await refused(limiter, Demand("k", Rule("requests_per_minute", 10), 1))
        assert refusal.retry_after_s == 66.0


async def test_at_once_only_as_many_as_there_are_slots(open_limiter: Any, clock: Any) -> None:
    async with open_limiter(clock) as limiter:
        wanted = [Demand("k", SLOTS, 1)]
        outcomes = await asyncio.gather(*(limiter.reserve(wanted, LEASE_S) for _ in range(50)))
        grants = [outcome for outcome in outcomes if isinstance(outcome, Grant)]
        assert len(grants) == 2
        await asyncio.gather(*(limiter.settle(grant, NOTHING) for grant in grants))
        assert (await granted(limiter, Demand("k", SLOTS, 0))).levels[0][0] == 2


async def test_without_rules_everything_is_granted(open_limiter: Any, clock: Any) -> None:
    async with open_limiter(clock) as limiter:
        grant = await granted(limiter)
        assert await limiter.renew(grant)
        await limiter.settle(grant, Amounts())
