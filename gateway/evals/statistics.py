"""How sure one may be of a share, a mean, or a difference between two that saw the same cases.

Arrays are of one number per case, K samples of a case averaged before. Tests are two-sided.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.evals import student

Numbers = Sequence[float] | npt.NDArray[np.float64]
NORMAL = NormalDist()


class Estimate(NamedTuple):
    """A mean, its standard error, the interval at the confidence asked for, and p for mean = 0."""

    mean: float
    error: float
    low: float
    high: float
    p: float


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share of `hits` in `n` (Wilson, 1927).

    >>> [round(it, 2) for it in wilson(20, 40)]
    [0.35, 0.65]
    """
    if n == 0:
        return 0.0, 1.0
    z, share = NORMAL.inv_cdf((1 + confidence) / 2), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of(
    values: Numbers, clusters: Sequence[str | int] | None = None, confidence: float = 0.95
) -> Estimate:
    """The mean, by Student's t; of differences it is the paired t-test.

    `clusters`: which cases belong together. Their sums are what varies independently (Liang &
    Zeger, 1986), with the correction for few clusters G/(G-1) and G-1 degrees of freedom. Where all
    are alike there is no error to go by, and p is that of the sign test over the clusters.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    mean = float(x.mean()) if n else 0.0
    sums = x - mean
    if clusters is not None:
        place = np.unique(np.array(clusters), return_inverse=True)[1]
        sums = np.bincount(place, sums).astype(float)
    groups = len(sums)
    if groups < 2:
        return Estimate(mean, math.inf, -math.inf, math.inf, 1.0)
    error = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / n
    if error == 0:
        p = 2 * 0.5**groups if mean else 1.0
        half = math.inf if mean and p > 1 - confidence else 0.0
        return Estimate(mean, 0.0, mean - half, mean + half, p)
    half = student.quantile(confidence, groups - 1) * error
    return Estimate(
        mean, error, mean - half, mean + half, student.two_sided(mean / error, groups - 1)
    )


def bootstrap(
    ours: Numbers, theirs: Numbers, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean difference, cases resampled (Efron, 1979)."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(difference), (resamples, len(difference)))
    low, high = np.quantile(difference[picked].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def mcnemar(ours: Numbers, theirs: Numbers) -> float:
    """The exact p of McNemar's test (1947), on the cases that just one of the two got right."""
    better = sum(a > b for a, b in zip(ours, theirs, strict=True))
    worse = sum(a < b for a, b in zip(ours, theirs, strict=True))
    n, few = better + worse, min(better, worse)
    tail = sum(math.comb(n, k) for k in range(few + 1))
    return min(1.0, float(2 * tail / 2**n))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted so that all that are called different are so at once (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted so that few of those called different are not (Benjamini & Hochberg, 1995)."""
    adjusted, smallest = [0.0] * len(p), 1.0
    order = sorted(range(len(p)), key=lambda i: p[i])
    for rank in range(len(p), 0, -1):
        place = order[rank - 1]
        smallest = min(smallest, len(p) / rank * p[place])
        adjusted[place] = smallest
    return adjusted


def power(effect: float, deviation: float, n: int, alpha: float = 0.05) -> float:
    """The chance that `n` pairs show a mean difference `effect`; `deviation`: of one difference."""
    z = NORMAL.inv_cdf(1 - alpha / 2)
    shift = abs(effect) * math.sqrt(n) / deviation
    return NORMAL.cdf(shift - z) + NORMAL.cdf(-shift - z)


def detectable(deviation: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest mean difference that `n` pairs show at the chance `power`."""
    return _both(alpha, power) * deviation / math.sqrt(n)


def needed(effect: float, deviation: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many pairs show a mean difference `effect` at the chance `power`."""
    return math.ceil((_both(alpha, power) * deviation / effect) ** 2)


def _both(alpha: float, power: float) -> float:
    return NORMAL.inv_cdf(1 - alpha / 2) + NORMAL.inv_cdf(power)
