"""How far judges agree beyond chance."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

Distance = Callable[[Any, Any], float]


def cohen(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Cohen's kappa (1960) of two judges of the same cases: 1 agree, 0 as by chance.

    Judges who both give one and the same label to everything agree, and tell nothing: 0.

    >>> cohen([1, 1, 0, 0], [1, 0, 0, 0])
    0.5
    """
    n = len(a)
    seen = sum(x == y for x, y in zip(a, b, strict=True)) / n
    of_a, of_b = Counter(a), Counter(b)
    chance = sum(of_a[label] * of_b[label] for label in of_a) / n**2
    return 0.0 if chance == 1 else (seen - chance) / (1 - chance)


def nominal(a: Any, b: Any) -> float:
    return float(a != b)


def interval(a: float, b: float) -> float:
    return (a - b) ** 2


def krippendorff(units: Sequence[Sequence[Any]], distance: Distance = nominal) -> float:
    """Krippendorff's alpha (2004): for any number of judges, who need not have judged everything.

    `units`: for each case the labels that it was given. A case with one label tells nothing.
    """
    paired = [labels for labels in units if len(labels) > 1]
    totals = Counter(label for labels in paired for label in labels)
    n = sum(totals.values())
    within = sum(_spread(Counter(labels), distance) / (len(labels) - 1) for labels in paired)
    by_chance = _spread(totals, distance) / (n - 1) if n > 1 else 0.0
    return 0.0 if by_chance == 0 else 1 - within / by_chance


def _spread(counts: Counter[Any], distance: Distance) -> float:
    """The distances of all ordered pairs."""
    return sum(m * k * distance(a, b) for a, m in counts.items() for b, k in counts.items())
