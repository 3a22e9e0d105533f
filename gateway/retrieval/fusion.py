"""From two rankings to one, and repeats taken out. Pure functions; scores: more is better."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Fusion = Literal["rrf", "min-max"]
Ranking = Mapping[int, float]  # passage → score, the best first

RRF_K = 60.0  # Cormack, Clarke & Büttcher 2009
SAME = 0.9  # of the words of two passages, above which one repeats the other
_WORD = re.compile(r"\w+")


def reciprocal_rank(rankings: Sequence[Ranking], k: float = RRF_K) -> dict[int, float]:
    """The sum of 1 / (k + rank), scaled so that first in all of them is 1."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking, 1):
            fused[passage] = fused.get(passage, 0.0) + (k + 1) / (k + rank) / len(rankings)
    return _ordered(fused)


def min_max(rankings: Sequence[Ranking]) -> dict[int, float]:
    """The mean of the scores, each ranking's stretched to [0, 1]; who is not in one has 0 there."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        low, high = min(ranking.values(), default=0.0), max(ranking.values(), default=0.0)
        for passage, score in ranking.items():
            share = (score - low) / (high - low) if high > low else 1.0
            fused[passage] = fused.get(passage, 0.0) + share / len(rankings)
    return _ordered(fused)


FUSIONS: dict[Fusion, Callable[[Sequence[Ranking]], dict[int, float]]] = {
    "rrf": reciprocal_rank,
    "min-max": min_max,
}


def without_repeats(texts: Sequence[str], most: int, same: float = SAME) -> list[int]:
    """The places of the first `most` texts that say what none before them says (Jaccard)."""
    kept: list[tuple[int, set[str]]] = []
    for place, text in enumerate(texts):
        if len(kept) == most:
            break
        words = set(_WORD.findall(text.lower()))
        if not any(_is_repeat(words, other, same) for _, other in kept):
            kept.append((place, words))
    return [place for place, _ in kept]


def _is_repeat(words: set[str], other: set[str], same: float) -> bool:
    return words == other or len(words & other) > same * len(words | other)


def _ordered(fused: dict[int, float]) -> dict[int, float]:
    return dict(sorted(fused.items(), key=lambda item: (-item[1], item[0])))
