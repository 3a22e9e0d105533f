"""From the words of the configuration to demands."""

from decimal import Decimal

import pytest

from gateway.config import Limits
from gateway.limits import NOTHING, Amounts, Demand, Rule, demands_for, rules_of
from gateway.limits.rules import MAX_CAPACITY, MAX_COST, grant_ids


def test_a_class_without_a_limit_has_no_rules() -> None:
    assert rules_of(Limits()) == ()


def test_money_is_whole_nano_dollars_and_closed_when_redis_is_silent() -> None:
    limits = Limits(concurrent=3, cost_per_day=Decimal("0.000000001"), cost_per_month=Decimal(250))
    assert rules_of(limits) == (
        Rule("concurrent", 3, "open"),
        Rule("cost_per_day", 1, "closed"),
        Rule("cost_per_month", 250 * 10**9, "closed"),
    )
    assert [rule.limit_class for rule in rules_of(limits)] == ["quota", "spend", "spend"]


def test_a_request_demands_its_bound_of_every_rule_and_one_slot() -> None:
    rules = rules_of(Limits(requests_per_minute=9, tokens_per_minute=9, concurrent=9))
    demands = demands_for([("key:a", rules), ("global", rules[:1])], Amounts(tokens=5, cost=7))
    assert [(d.subject, d.amount) for d in demands] == [
        ("key:a", 1),
        ("key:a", 5),
        ("key:a", 1),
        ("global", 1),
    ]
    assert isinstance(demands[0], Demand)


def test_a_finished_request_holds_no_slot() -> None:
    assert Amounts(tokens=5).of("concurrent") == 0
    assert NOTHING.of("requests_per_minute") == 0


@pytest.mark.parametrize(
    ("kind", "capacity"),
    [("concurrent", 0), ("tokens_per_minute", MAX_CAPACITY + 1), ("cost_per_day", MAX_COST + 1)],
)
def test_what_cannot_be_counted_exactly_is_no_rule(kind: str, capacity: int) -> None:
    with pytest.raises(ValueError, match=kind):
        Rule(kind, capacity)  # type: ignore[arg-type]


def test_grants_of_two_processes_have_different_names() -> None:
    ours, theirs = grant_ids(), grant_ids()
    assert len({next(ours), next(ours), next(theirs), next(theirs)}) == 4
