"""Is B better than A, or were the cases kind to it?

A score is an estimate, so it comes with an interval, and an interval is tried like any other tool:
in how many of 400 repetitions does it hold the truth? Two releases that saw the same cases
are compared case by case: what is hard for both cancels out, and far fewer cases are needed than
for two separate scores. Who compares twenty things finds one that differs by chance, unless it is
adjusted. And "cannot tell" is a result: with it comes the number of cases that could.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from gateway.evals.statistics import holm, mcnemar, mean_of, needed, wilson
from lessons.story import Claim, Exercise, Result

Floats = npt.NDArray[np.float64]
REPEATS = 400


def shares(p: float, n: int) -> Floats:
    """Hits in `n` cases, many times over."""
    return np.random.default_rng(0).binomial(n, p, REPEATS).astype(float)


def wilson_holds(p: float, n: int) -> float:
    inside = [low <= p <= high for low, high in (wilson(it, n) for it in shares(p, n))]
    return sum(inside) / REPEATS


def textbook_holds(p: float, n: int) -> float:
    """Of the interval p ± 1.96 · sqrt(p · (1 - p) / n)."""
    found = shares(p, n) / n
    half = 1.96 * np.sqrt(found * (1 - found) / n)
    return float(np.mean((found - half <= p) & (p <= found + half)))


def pair(n: int, gain: float, seed: int) -> tuple[Floats, Floats]:
    """Two releases on the same cases, some easy and some hard; the second is a little better."""
    rng = np.random.default_rng(seed)
    ease = rng.beta(0.3, 0.2, n)
    luck = rng.random(n)
    return (luck < ease).astype(float), (luck < np.minimum(1, ease + gain)).astype(float)


@cache
def found(is_paired: bool, n: int = 200, gain: float = 0.06) -> float:
    """How often the gain is seen."""
    hits = 0
    for seed in range(REPEATS):
        a, b = pair(n, gain, seed)
        if is_paired:
            hits += mcnemar(b, a) < 0.05
        else:
            ours, theirs = mean_of(b), mean_of(a)
            hits += (ours.mean - theirs.mean) > 1.96 * np.hypot(ours.error, theirs.error)
    return hits / REPEATS


def false_alarms(is_adjusted: bool) -> float:
    """How often one of twenty comparisons of equals is called different."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(REPEATS):
        p = rng.random(20).tolist()
        alarms += min(holm(p) if is_adjusted else p) < 0.05
    return alarms / REPEATS


def run() -> Result:
    return {
        "Wilson's interval holds 0.95 of 20": Claim(wilson_holds(0.95, 20), 0.88, 0.99),
        "the textbook's holds 0.95 of 20": Claim(textbook_holds(0.95, 20), 0.5, 0.75),
        "a gain of 0.06 in 200 cases: seen, separately": Claim(found(is_paired=False), 0, 0.1),
        "the same: seen, case by case": Claim(found(is_paired=True), 0.7, 1),
        "20 comparisons of equals: false alarms": Claim(false_alarms(is_adjusted=False), 0.58, 0.7),
        "the same, adjusted by Holm": Claim(false_alarms(is_adjusted=True), 0, 0.08),
    }


EXERCISES = (
    Exercise(
        "To see half the difference, how many times as many cases are needed?",
        4,
        lambda: round(needed(0.01, 0.5) / needed(0.02, 0.5)),
    ),
    Exercise(
        "B is right on 5 cases where A is wrong, A on none where B is. Is that significant?",
        False,
        lambda: mcnemar([1] * 5, [0] * 5) < 0.05,
    ),
)
