"""Both limiters against a slow, obvious one, step by step: same grants, waits and remainders."""

import asyncio
import datetime
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gateway.limits import Amounts, Demand, Grant, Refusal, Rule

Key = tuple[str, str, str]


@dataclass
class Reservation:
    amount: int
    end: int  # of its lease [ms]
    used: int | None = None  # once settled


@dataclass
class Reference:
    """Keeps all that ever happened and works everything out from the beginning."""

    taken: dict[Key, list[tuple[int, int]]] = field(default_factory=dict)  # time, amount
    reserved: dict[Key, dict[str, Reservation]] = field(default_factory=dict)

    def level(self, key: Key, capacity: int, now: int) -> Fraction:
        level, before = Fraction(capacity), 0
        for at, amount in [*self.taken.get(key, []), (now, 0)]:
            refilled = level + Fraction(capacity * (at - before), 60_000)
            level = min(Fraction(capacity), min(Fraction(capacity), refilled) - amount)
            before = at
        return level

    def used(self, key: Key, now: int) -> int:
        seed = SEED if key[2] else 0
        for it in self.reserved.get(key, {}).values():
            if it.used is not None:
                seed += it.used
            elif it.end > now:
                seed += it.amount
        return seed

    def wait(self, demand: Demand, key: Key, now: int) -> int | None:
        """[ms]; None: until the window ends or a slot is free."""
        capacity = demand.rule.capacity
        if is_bucket(demand):
            short = demand.amount - self.level(key, capacity, now)
            return max(0, math.ceil(short * 60_000 / capacity))
        return 0 if self.used(key, now) + demand.amount <= capacity else None

    def left(self, demand: Demand, key: Key, now: int) -> int:
        if is_bucket(demand):
            return max(0, math.floor(self.level(key, demand.rule.capacity, now)))
        return max(0, demand.rule.capacity - self.used(key, now))

    def take(self, demand: Demand, key: Key, grant: str, now: int, end: int) -> None:
        if is_bucket(demand):
            self.taken.setdefault(key, []).append((now, demand.amount))
        else:
            self.reserved.setdefault(key, {})[grant] = Reservation(demand.amount, end)

    def settle(self, demand: Demand, key: Key, grant: str, used: int, now: int) -> None:
        if is_bucket(demand):
            self.taken[key].append((now, used - demand.amount))
        else:
            self.reserved[key][grant].used = used

    def renew(self, demand: Demand, key: Key, grant: str, now: int, end: int) -> bool:
        if is_bucket(demand):
            return True
        it = self.reserved[key][grant]
        is_held = it.end > now
        if is_held:
            it.end = end
        return is_held


def is_bucket(demand: Demand) -> bool:
    return demand.rule.kind in ("requests_per_minute", "tokens_per_minute")


SEED = 13
RULES = [
    Rule("requests_per_minute", 7),
    Rule("tokens_per_minute", 900),
    Rule("concurrent", 2),
    Rule("cost_per_day", 60, "closed"),
    Rule("cost_per_month", 70, "closed"),
]
AMOUNTS = {"requests_per_minute": 1, "concurrent": 1}
DEMANDS = st.lists(
    st.tuples(st.sampled_from(["key:a", "global"]), st.sampled_from(RULES)),
    min_size=1,
    max_size=5,
    unique=True,
)


class Comparison(RuleBasedStateMachine):
    """`opener` and `clock` are what conftest gives."""

    grants = Bundle("grants")

    def __init__(self, opener: Any, clock: Any) -> None:
        super().__init__()
        self.clock = clock
        self.runner = asyncio.Runner()
        self.context = opener(self.clock, seed=self.spent)
        self.limiter = self.runner.run(self.context.__aenter__())
        self.reference = Reference()

    def teardown(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()

    async def spent(self, subject: str, since: datetime.date) -> int:
        return SEED

    def window(self, demand: Demand) -> str:
        if not demand.rule.kind.startswith("cost"):
            return ""
        day = datetime.datetime.fromtimestamp(self.clock.wall(), datetime.UTC).date()
        return str(day if demand.rule.kind == "cost_per_day" else day.replace(day=1))

    @rule(ms=st.sampled_from([0, 1, 499, 500, 8_572, 30_000, 61_000]))
    def advance(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(
        target=grants,
        wanted=DEMANDS,
        amount=st.integers(0, 65),
        lease_s=st.sampled_from([0.5, 30.0]),
    )
    def reserve(self, wanted: list[tuple[str, Rule]], amount: int, lease_s: float) -> Any:
        demands = [Demand(subject, it, AMOUNTS.get(it.kind, amount)) for subject, it in wanted]
        now, end = self.clock.ms(), self.clock.ms() + int(lease_s * 1000)
        keys = [(d.subject, d.rule.kind, self.window(d)) for d in demands]
        pairs = list(zip(demands, keys, strict=True))
        outcome = self.runner.run(self.limiter.reserve(demands, lease_s))
        if too_large := [d for d in demands if d.amount > d.rule.capacity]:
            assert outcome == Refusal(too_large[0], "too_large", None)
            return multiple()
        waits = [self.reference.wait(demand, key, now) for demand, key in pairs]
        if isinstance(outcome, Grant):
            assert not any(wait != 0 for wait in waits)
            for demand, key in pairs:
                self.reference.take(demand, key, outcome.id, now, end)
        else:
            assert outcome.reason == "limited"
            finite = [self.finite(d, w) for d, w in zip(demands, waits, strict=True)]
            assert outcome.retry_after_s == max(finite) / 1000 > 0
            assert finite[demands.index(outcome.demand)] == max(finite)
        self.compare(demands, keys, outcome)
        return (outcome, keys) if isinstance(outcome, Grant) else multiple()

    def compare(self, demands: list[Demand], keys: list[Key], outcome: Grant | Refusal) -> None:
        now = self.clock.ms()
        for demand, key, (left, reset) in zip(demands, keys, outcome.levels, strict=True):
            assert left == self.reference.left(demand, key, now)
            if is_bucket(demand):
                capacity = demand.rule.capacity
                missing = capacity - self.reference.level(key, capacity, now)
                assert reset == math.ceil(missing * 60_000 / capacity)

    def look(self, demands: tuple[Demand, ...]) -> None:
        """Nothing more is asked for, so that what is left can be seen."""
        nothing = [Demand(demand.subject, demand.rule, 0) for demand in demands]
        keys = [(d.subject, d.rule.kind, self.window(d)) for d in nothing]
        outcome = self.runner.run(self.limiter.reserve(nothing, 1.0))
        self.compare(nothing, keys, outcome)

    def finite(self, demand: Demand, wait: int | None) -> int:
        if wait is not None:
            return wait
        if demand.rule.kind == "concurrent":
            return 1000
        now = datetime.datetime.fromtimestamp(self.clock.wall(), datetime.UTC)
        day = datetime.datetime(now.year, now.month, now.day, tzinfo=datetime.UTC)
        following = day + datetime.timedelta(days=1)
        while demand.rule.kind == "cost_per_month" and following.day != 1:
            following += datetime.timedelta(days=1)
        return math.ceil((following.timestamp() - self.clock.wall()) * 1000)

    @rule(held=consumes(grants), tokens=st.integers(0, 2000), cost=st.integers(0, 80))
    def settle(self, held: tuple[Grant, list[Key]], tokens: int, cost: int) -> None:
        grant, keys = held
        used = Amounts(1, tokens, cost)
        self.runner.run(self.limiter.settle(grant, used))
        for demand, key in zip(grant.demands, keys, strict=True):
            self.reference.settle(demand, key, grant.id, used.of(demand.rule.kind), self.clock.ms())

    @rule(held=grants)
    def renew(self, held: tuple[Grant, list[Key]]) -> None:
        grant, keys = held
        now, end = self.clock.ms(), self.clock.ms() + int(grant.lease_s * 1000)
        expected = [
            self.reference.renew(demand, key, grant.id, now, end)
            for demand, key in zip(grant.demands, keys, strict=True)
        ]
        assert self.runner.run(self.limiter.renew(grant)) is all(expected)
        self.look(grant.demands)


def test_agrees_with_the_reference(open_limiter: Any, clock: Any) -> None:
    run_state_machine_as_test(
        lambda: Comparison(open_limiter, type(clock)()),
        settings=settings(max_examples=40, stateful_step_count=40, deadline=None),
    )
