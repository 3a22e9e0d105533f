"""Budgets become rules of the limiter's; of two of a kind the tighter holds."""

import asyncio

import pytest

from gateway.budgets import over_soft, with_budgets
from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import MAX_COST, Demand, Grant, Refusal, Rule
from gateway.store.teams import Budget


@pytest.mark.parametrize(
    ("class_cost", "hard", "capacity"),
    [(100, 50, 50), (50, 100, 50), (50, None, 50), (None, None, MAX_COST), (None, 0, 1)],
)
def test_the_tighter_holds(class_cost: int | None, hard: int | None, capacity: int) -> None:
    rules = [Rule("requests_per_minute", 7)]
    if class_cost is not None:
        rules.append(Rule("cost_per_month", class_cost, "closed"))
    budget = Budget(subject="team:a", period="month", soft=1, hard=hard)
    assert set(with_budgets(rules, [budget])) == {
        Rule("requests_per_minute", 7),
        Rule("cost_per_month", capacity, "closed"),
    }


def test_soft_warns_and_hard_refuses() -> None:
    budgets = {"team:a": [Budget(subject="team:a", period="day", soft=50, hard=100)]}
    (rule,) = with_budgets([], budgets["team:a"])

    async def scene() -> None:
        limiter = MemoryLimiter()
        for spent in (40, 80):
            grant = await limiter.reserve([Demand("team:a", rule, 40)], 60)
            assert isinstance(grant, Grant)
            assert over_soft(grant, budgets) == (budgets["team:a"] if spent > 50 else [])
        assert isinstance(await limiter.reserve([Demand("team:a", rule, 40)], 60), Refusal)

    asyncio.run(scene())
