"""Is one target better than another? Better, worse, or one cannot tell; and what it would take.

The same cases, paired. The score of all graders together is what the comparison is for, tested
once; the graders alone are many, so their p are adjusted by Holm's method.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from gateway.errors import BadRequest
from gateway.evals.cases import Case
from gateway.evals.definition import Comparison
from gateway.evals.formats import spread, variants
from gateway.evals.runs import Item, Run
from gateway.evals.scores import Column, Scores, columns
from gateway.evals.statistics import Estimate, detectable, holm, mcnemar, mean_of, needed

TOTAL = "score"
Says = Literal["better", "worse", "cannot tell"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of `candidate` against `baseline` by one grader, on the `n` cases that both answered."""

    grader: str
    n: int
    baseline: float
    candidate: float
    difference: Estimate
    p: float
    alpha: float
    detectable: float  # the smallest difference that so many cases show
    needed: int  # cases to show the smallest difference that would matter; 0: none differed yet

    @property
    def says(self) -> Says:
        if self.p > self.alpha or not self.difference.mean:
            return "cannot tell"
        return "better" if self.difference.mean > 0 else "worse"


def compare(
    baseline: Column, candidate: Column, cases: Sequence[Case], asked: Comparison
) -> list[Verdict]:
    """The total first, then each grader that both have."""
    old, new = baseline.by_grader, candidate.by_grader
    parts = [_verdict(it, old[it], new[it], cases, asked) for it in old if it in new]
    adjusted = zip(parts, holm([it.p for it in parts]), strict=True)
    total = _verdict(TOTAL, baseline.total, candidate.total, cases, asked)
    return [total, *(msgspec.structs.replace(it, p=p) for it, p in adjusted)]


def _verdict(
    grader: str, old: Scores, new: Scores, cases: Sequence[Case], asked: Comparison
) -> Verdict:
    kept = [it for it in cases if it.id in old and it.id in new]
    before, after = ([scores[it.id] for it in kept] for scores in (old, new))
    n, groups = len(kept), [it.group for it in kept]
    differences = [b - a for a, b in zip(before, after, strict=True)]
    found = mean_of(differences, groups, 1 - asked.alpha)
    is_binary = set(before) | set(after) <= {0.0, 1.0}
    is_exact = is_binary and len(set(groups)) == n  # right and wrong of independent cases
    deviation = found.error * math.sqrt(n)  # of one case, as if cases were independent
    is_known = 0 < deviation < math.inf
    return Verdict(
        grader=grader, n=n, difference=found, alpha=asked.alpha,
        baseline=sum(before) / n if n else 0.0,
        candidate=sum(after) / n if n else 0.0,
        p=mcnemar(after, before) if is_exact else found.p,
        detectable=detectable(deviation, n, asked.alpha, asked.power) if is_known else 0.0,
        needed=needed(asked.smallest, deviation, asked.alpha, asked.power) if is_known else 0,
    )  # fmt: skip


def front(columns: Sequence[Column]) -> set[str]:
    """Those that nobody beats in both quality and price (Pareto); without prices, in seconds."""
    by_cost = any(it.cost for it in columns)
    points = [(it.name, it.cost if by_cost else it.seconds, it.mean) for it in columns]
    return {
        name
        for name, price, quality in points
        if not any(p <= price and q >= quality and (p, q) != (price, quality) for _, p, q in points)
    }


def spreads(run: Run, items: Iterable[Item]) -> list[dict[str, Any]]:
    """For each target of an eval with formats: how far they lie apart, and the best, confirmed."""
    if run.eval.formats is None:
        raise BadRequest(f"the eval of {run.id} has no formats")
    made, kept = variants(run.eval.formats), columns(run, items)
    rows = []
    for target in run.eval.targets:
        mine = [kept[f"{target}#{i}"].total for i in range(len(made))]
        cases = [it for it in run.eval.cases if all(it.id in total for total in mine)]
        if len({it.group for it in cases}) < 2:
            raise BadRequest(f"{target}: too few cases were answered in all formats")
        scores = np.array([[total[it.id] for it in cases] for total in mine])
        found = spread(scores, [it.group for it in cases])
        sure = found.confirmed
        rows.append({
            "target": target, "formats": len(made), "cases": len(cases),
            "worst": f"{min(found.means):.3f}", "best": f"{max(found.means):.3f}",
            "winner": " ".join(map(repr, made[found.winner])),
            "where it won": f"{found.selected:.3f}",
            "elsewhere": f"{sure.mean:.3f} [{sure.low:.3f}, {sure.high:.3f}]",
        })  # fmt: skip
    return rows
