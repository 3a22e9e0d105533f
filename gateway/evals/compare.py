"""Is one target better than another? Better, worse, or one cannot tell; and what it would take.

The same cases, paired. The score of all graders together is what the comparison is for, tested
once. The graders alone are many, so their p are adjusted that none is called different by chance
(Holm); the tags say where to look, so theirs only that few are (Benjamini and Hochberg).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np

from gateway.errors import BadRequest
from gateway.evals import statistics
from gateway.evals.cases import Case
from gateway.evals.definition import AnyGrader, Comparison
from gateway.evals.formats import Spread, spread
from gateway.evals.runs import Item, Run
from gateway.evals.scores import Column, Scores, columns
from gateway.evals.statistics import Estimate, mcnemar, mean_of

TOTAL = "score"
Says = Literal["better", "worse", "cannot tell"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Of `candidate` against `baseline` on the `n` cases that both answered."""

    by: str  # all graders together, one of them, or all of them on the cases of one #tag
    n: int
    baseline: float
    candidate: float
    difference: Estimate
    p: float
    alpha: float
    detectable: float  # the smallest difference that so many cases show
    needed: int  # cases that show the smallest difference that would matter

    @property
    def says(self) -> Says:
        if self.p > self.alpha or not self.difference.mean:
            return "cannot tell"
        return "better" if self.difference.mean > 0 else "worse"


def compare(
    baseline: Column, candidate: Column, cases: Sequence[Case], asked: Comparison
) -> list[Verdict]:
    """The total, each grader that both have, each tag."""
    old, new = baseline.by_grader, candidate.by_grader
    whole = baseline.total, candidate.total
    graders = [_verdict(it, old[it], new[it], cases, asked) for it in old if it in new]
    tags = [
        _verdict(f"#{tag}", *whole, [it for it in cases if tag in it.tags], asked)
        for tag in sorted({tag for case in cases for tag in case.tags})
    ]
    total = _verdict(TOTAL, *whole, cases, asked)
    few_false = _adjusted(tags, statistics.benjamini_hochberg)
    return [total, *_adjusted(graders, statistics.holm), *few_false]


def _adjusted(
    verdicts: list[Verdict], adjust: Callable[[Sequence[float]], list[float]]
) -> list[Verdict]:
    p = adjust([it.p for it in verdicts])
    return [msgspec.structs.replace(it, p=its) for it, its in zip(verdicts, p, strict=True)]


def _verdict(
    by: str, old: Scores, new: Scores, cases: Sequence[Case], asked: Comparison
) -> Verdict:
    kept = [it for it in cases if it.id in old and it.id in new]
    before, after = ([scores[it.id] for it in kept] for scores in (old, new))
    n, groups = len(kept), [it.group for it in kept]
    differences = [b - a for a, b in zip(before, after, strict=True)]
    found = mean_of(differences, groups, 1 - asked.alpha)
    is_binary = set(before) | set(after) <= {0.0, 1.0}
    is_exact = is_binary and len(set(groups)) == n  # right and wrong of independent cases
    error = found.error if math.isfinite(found.error) else 0.0
    deviation = error * math.sqrt(n)  # of one case, as if cases were independent
    if not deviation:  # all alike so far: then as if one of two more were not
        deviation = math.sqrt(n + 1) / (n + 2)
    chances = asked.alpha, asked.power
    return Verdict(
        by=by, n=n, difference=found, alpha=asked.alpha,
        baseline=sum(before) / n if n else 0.0,
        candidate=sum(after) / n if n else 0.0,
        p=mcnemar(after, before) if is_exact else found.p,
        detectable=statistics.detectable(deviation, max(n, 1), *chances),
        needed=statistics.needed(asked.smallest, deviation, *chances),
    )  # fmt: skip


def shared(before: Run, after: Run) -> tuple[list[Case], dict[str, AnyGrader]]:
    """The cases that are the same in both, and the graders, which may weigh what they do in
    `after`."""
    theirs = {case.id: case for case in after.eval.cases}
    cases = [case for case in before.eval.cases if theirs.get(case.id) == case]
    old = before.eval.graders
    graders = {
        name: it
        for name, it in after.eval.graders.items()
        if name in old and msgspec.structs.replace(old[name], weight=it.weight) == it
    }
    return cases, graders


def front(columns: Sequence[Column]) -> set[str]:
    """Those that nobody beats in both quality and price (Pareto); without prices, in seconds."""
    by_cost = any(it.cost for it in columns)
    points = [(it.name, it.cost if by_cost else it.seconds, it.mean) for it in columns if it.total]
    return {
        name
        for name, price, quality in points
        if not any(p <= price and q >= quality and (p, q) != (price, quality) for _, p, q in points)
    }


def spreads(run: Run, items: Iterable[Item]) -> dict[str, Spread]:
    """For each target of an eval with formats: how far they lie apart, and the best, confirmed.

    Raises BadRequest for an eval without formats, or when too little was answered.
    """
    if run.eval.formats is None:
        raise BadRequest(f"the eval of {run.id} has no formats")
    kept, found = columns(run, items), {}
    for target in run.eval.targets:
        mine = [kept[f"{target}#{i}"].total for i in range(run.eval.formats.count)]
        cases = [it for it in run.eval.cases if all(it.id in total for total in mine)]
        if len({it.group for it in cases}) < 2:
            raise BadRequest(f"{target}: too few cases were answered in all formats")
        scores = np.array([[total[it.id] for it in cases] for total in mine])
        found[target] = spread(scores, [it.group for it in cases])
    return found
