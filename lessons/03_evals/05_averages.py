"""Why does an average lie?

It says what the mix of cases says. The same network is near perfect on one kind of question and
helpless on another; add more of the first, and it has improved without a change. Two releases can
even change places: the second better on every kind, and worse on the whole, as it was asked the
harder ones (Simpson's paradox). And a release may gain on the many harmless cases what it loses on
the few that matter. So cases carry tags, targets see the same cases, and the report begins with the
worst ones.
"""

from functools import cache
from statistics import mean

from gateway.evals.cases import Answer, Case
from gateway.evals.graders import Contains, Regex, Schema
from gateway.evals.probes import Choice
from gateway.evals.statistics import mean_of
from lessons.chat import chat_text
from lessons.speakers import cases, complete
from lessons.story import Claim, Exercise, Result

Counts = dict[str, tuple[int, int]]  # kind → right, asked
OLD: Counts = {"easy": (81, 87), "hard": (192, 263)}
NEW: Counts = {"easy": (234, 270), "hard": (55, 80)}
GRADERS = (Contains(), Regex(), Schema())
KINDS = ("fact", "paraphrase", "grounded", "form", "json")
NUM_EACH = 10


@cache
def asked() -> dict[str, list[Case]]:
    """Ten cases of each kind that an answer alone can be graded on."""
    every = [*cases("accuracy"), *cases("grounded"), *cases("format")]
    return {
        kind: [it for it in every if it.id.startswith(kind) and not Choice().takes(it)][:NUM_EACH]
        for kind in KINDS
    }


@cache
def by_kind() -> dict[str, float]:
    """The network's mean score on each."""
    flat = [it for kind in KINDS for it in asked()[kind]]
    said = dict(
        zip(
            [it.id for it in flat],
            complete([chat_text(it.turns()) for it in flat], 20),
            strict=True,
        )
    )
    return {kind: mean(_score(it, said[it.id]) for it in asked()[kind]) for kind in KINDS}


def _score(case: Case, text: str) -> float:
    return mean(it.score(case, Answer(text)) for it in GRADERS if it.takes(case))


def whole(counts: Counts) -> float:
    """
    >>> whole({"easy": (1, 1), "hard": (0, 1)})
    0.5
    """
    return sum(right for right, _ in counts.values()) / sum(n for _, n in counts.values())


def share(counts: Counts, kind: str) -> float:
    return counts[kind][0] / counts[kind][1]


def traded() -> list[float]:
    """Case by case: a gain on a fifth of the harmless ones, a loss on two of five that matter."""
    return [1.0] * 20 + [0.0] * 80 + [-1.0] * 2 + [0.0] * 3


def run() -> Result:
    scores = by_kind()
    return {
        "network, all kinds": Claim(mean(scores.values()), 0.2, 0.8),
        "network, its best kind": Claim(max(scores.values()), 0.6, 1),
        "network, its worst kind": Claim(min(scores.values()), 0, 0.4),
        "old on easy, on hard: difference to new": Claim(
            min(share(OLD, it) - share(NEW, it) for it in OLD), 0.04, 1
        ),
        "old on the whole: difference to new": Claim(whole(OLD) - whole(NEW), -1, -0.04),
        "gain of a trade, low end": Claim(mean_of(traded()).low, 0.05, 1),
        "its gain on the cases that matter": Claim(mean(traded()[-5:]), -0.4, -0.4),
    }


EXERCISES = (
    Exercise(
        "Which kind is the small network worst at, of those above?",
        "form",
        lambda: min(by_kind(), key=by_kind().__getitem__),
    ),
    Exercise(
        "Old and new are put to the same 100 easy and 100 hard cases. Which one is better now?",
        "old",
        lambda: max(
            {"old": OLD, "new": NEW},
            key=lambda name: sum(share({"old": OLD, "new": NEW}[name], it) for it in OLD),
        ),
    ),
)
