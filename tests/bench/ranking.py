"""How good a ranking is, and how sure one may be of a difference. Small, so that a hand can check.

A ranking is a sequence of names, the best first; what is relevant is a set, each of gain 1.
"""

import math
from collections.abc import Collection, Hashable, Sequence

import numpy as np

from gateway.evals.statistics import bootstrap as paired_interval


def ndcg(ranking: Sequence[Hashable], relevant: Collection[Hashable], k: int = 10) -> float:
    """Discounted cumulative gain at k, over that of the best possible (Järvelin & Kekäläinen)."""
    gains = [1 / math.log2(rank + 1) for rank, it in enumerate(ranking[:k], 1) if it in relevant]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return sum(gains) / best if best else 0.0


def recall(ranking: Sequence[Hashable], relevant: Collection[Hashable], k: int = 10) -> float:
    """The share of what is relevant that is among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[Hashable], relevant: Collection[Hashable]) -> float:
    """1 / the place of the first that is relevant; 0 without one."""
    return next((1 / rank for rank, it in enumerate(ranking, 1) if it in relevant), 0.0)


def exact_interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper & Pearson 1934): it holds for small counts, too."""

    def at_most(most: int, share: float) -> float:
        odds = math.log(share) - math.log1p(-share)
        ways = (math.lgamma(of + 1) - math.lgamma(n + 1) - math.lgamma(of - n + 1) + n * odds
                for n in range(most + 1))  # fmt: skip
        return sum(math.exp(it + of * math.log1p(-share)) for it in ways)

    def share_with(most: int, chance: float) -> float:
        low, high = 0.0, 1.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(most, middle) > chance else (low, middle)
        return low

    return (
        share_with(count - 1, 0.975) if count else 0.0,
        share_with(count, 0.025) if count < of else 1.0,
    )


def area_under(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive scores above a negative: 0.5 tells nothing, 1 all."""
    above = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return float((above > 0).mean() + (above == 0).mean() / 2)


__all__ = [
    "area_under",
    "exact_interval",
    "ndcg",
    "paired_interval",
    "recall",
    "reciprocal_rank",
]
