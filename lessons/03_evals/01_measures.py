"""What does a score measure?

Twenty-four answers, each called right or wrong by a person, against one reference. A measure is as
good as it tells these apart: AUC is the chance that a right answer scores above a wrong one. To
compare whole texts punishes who explains; to look for the words believes who denies them; overlap
rewards echoes of the question; vectors see the topic, not the truth. None is the quality itself:
one picks by what its errors cost, and looks at the worst cases.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from gateway.evals.cases import Answer, Case
from gateway.evals.graders import Bleu, Contains, Exact, RougeL, TextGrader, TokenF1
from lessons.shelf import embed
from lessons.story import Claim, Exercise, Result

Row = tuple[str, str, bool]  # reference, answer, is it right
ROWS: tuple[Row, ...] = (
    ("Paris", "Paris", True),
    ("Paris", "The capital of France is Paris.", True),
    ("Paris", "It is Lyon, not Paris.", False),
    ("Paris", "The capital of France is Lyon.", False),
    ("eight", "A spider has eight legs.", True),
    ("eight", "8", True),
    ("eight", "A spider has six legs.", False),
    ("eight", "Eight is wrong; it has six.", False),
    ("carbon dioxide", "Plants take in carbon dioxide.", True),
    ("carbon dioxide", "CO2", True),
    ("carbon dioxide", "carbon monoxide", False),
    ("carbon dioxide", "Plants take in oxygen.", False),
    ("It starts at nine in the morning.", "At 9 a.m.", True),
    ("It starts at nine in the morning.", "Nine in the morning.", True),
    ("It starts at nine in the morning.", "It starts at nine in the evening.", False),
    ("It starts at nine in the morning.", "It starts at ten in the morning.", False),
    ("The dog bit the man.", "The man was bitten by the dog.", True),
    ("The dog bit the man.", "A man got a bite from the dog.", True),
    ("The dog bit the man.", "The man bit the dog.", False),
    ("The dog bit the man.", "The dog did not bite the man.", False),
    ("The shop is closed on Mondays.", "It does not open on Mondays.", True),
    ("The shop is closed on Mondays.", "On Mondays it is shut.", True),
    ("The shop is closed on Mondays.", "The shop is open on Mondays.", False),
    ("The shop is closed on Mondays.", "The shop is closed on Sundays.", False),
)
GRADERS: dict[str, TextGrader] = {
    "exact": Exact(), "contains": Contains(), "token F1": TokenF1(), "ROUGE-L": RougeL(),
    "BLEU": Bleu(),
}  # fmt: skip


def by_words(name: str) -> list[float]:
    return [
        GRADERS[name].score(Case(id="", expected=(reference,)), Answer(answer))
        for reference, answer, _ in ROWS
    ]


@cache
def by_vectors() -> list[float]:
    """The cosine of answer and reference."""
    ours, theirs = embed([it[1] for it in ROWS]), embed([it[0] for it in ROWS])
    return [float(it) for it in (ours * theirs).sum(axis=1)]


def auc(scores: list[float]) -> float:
    """The chance that a right answer scores above a wrong one; a tie is half a chance."""
    right = np.array([s for s, row in zip(scores, ROWS, strict=True) if row[2]])
    wrong = np.array([s for s, row in zip(scores, ROWS, strict=True) if not row[2]])
    above = np.subtract.outer(right, wrong)
    return float((above > 0).mean() + (above == 0).mean() / 2)


def share(of: Callable[[Row], bool], scores: list[float]) -> float:
    """How many of some rows have the full score."""
    kept = [score == 1 for score, row in zip(scores, ROWS, strict=True) if of(row)]
    return sum(kept) / len(kept)


def run() -> Result:
    exact, contains = by_words("exact"), by_words("contains")
    return {
        "right answers that exact accepts": Claim(share(lambda it: it[2], exact), 0, 0.2),
        "wrong ones that exact accepts": Claim(share(lambda it: not it[2], exact), 0, 0),
        "right answers that contains accepts": Claim(share(lambda it: it[2], contains), 0.2, 0.5),
        "wrong ones that contains accepts": Claim(share(lambda it: not it[2], contains), 0.1, 0.3),
        "AUC of token F1": Claim(auc(by_words("token F1")), 0.3, 0.6),
        "AUC of ROUGE-L": Claim(auc(by_words("ROUGE-L")), 0.3, 0.6),
        "AUC of BLEU": Claim(auc(by_words("BLEU")), 0.2, 0.6),
        "AUC of the cosine": Claim(auc(by_vectors()), 0.3, 0.8),
    }


EXERCISES = (
    Exercise(
        "'The man bit the dog.' for 'The dog bit the man.': what does token F1 say?",
        1.0,
        lambda: by_words("token F1")[
            ROWS.index(("The dog bit the man.", "The man bit the dog.", False))
        ],
    ),
    Exercise(
        "And a measure that minds the order of words, ROUGE-L: is it still 1?",
        False,
        lambda: RougeL().compare("The man bit the dog.", "The dog bit the man.") == 1,
    ),
)
