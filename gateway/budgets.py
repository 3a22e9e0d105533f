"""Budgets as limits: the hard bound is a cost rule of the limiter's, the soft one is watched.

What a budget is and who sets it is `store.teams`'s; counting and refusing is `limits`'s.
"""

from collections.abc import Mapping, Sequence

from gateway.limits.rules import MAX_COST, Grant, Kind, Rule
from gateway.store.teams import Budget

KINDS: Mapping[str, Kind] = {"day": "cost_per_day", "month": "cost_per_month"}


def with_budgets(rules: Sequence[Rule], budgets: Sequence[Budget]) -> tuple[Rule, ...]:
    """All rules of one subject: its limit class's and its budgets', of two of a kind the tighter.

    A budget without a hard bound is a rule that never refuses, so that its spend is counted. One of
    0 refuses all that costs anything.
    """
    merged = {rule.kind: rule for rule in rules}
    for budget in budgets:
        hard = MAX_COST if budget.hard is None else min(max(1, budget.hard), MAX_COST)
        rule = Rule(KINDS[budget.period], hard, "closed")
        if rule.kind not in merged or rule.capacity < merged[rule.kind].capacity:
            merged[rule.kind] = rule
    return tuple(merged.values())


def over_soft(grant: Grant, budgets: Mapping[str, Sequence[Budget]]) -> list[Budget]:
    """Of the budgets (subject → its own) those whose soft bound is passed, this request counted."""
    passed = []
    for demand, (left, _) in zip(grant.demands, grant.levels, strict=True):
        spent = demand.rule.capacity - left
        for budget in budgets.get(demand.subject, ()):
            soft = MAX_COST if budget.soft is None else budget.soft
            if KINDS[budget.period] == demand.rule.kind and spent > soft:
                passed.append(budget)
    return passed
