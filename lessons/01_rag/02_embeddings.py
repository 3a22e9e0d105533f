"""How does a machine see that two texts mean the same?

A small network (MiniLM: 22 million weights) turns a text into 384 numbers, a direction. It was
trained so that texts which belong together point the same way; the cosine of the angle says how
much. No word needs to be shared. Searching is one matrix product: every passage times the question.
"""

from functools import cache

import numpy as np

from lessons.shelf import answerable, average, embed, ndcg, passages, rankings, shelf
from lessons.story import Claim, Exercise, Result

SAME = ("How do I throw an exception?", "Raising an error on purpose")
OTHER = ("How do I throw an exception?", "How do I throw a ball?")


@cache
def cosine(left: str, right: str) -> float:
    """1: the same direction; 0: nothing to do with each other.

    >>> cosine("a cat", "a cat") > 0.999
    True
    """
    a, b = embed([left, right])
    return float(a @ b)


def quality(kind: str, arm: int) -> float:
    """Mean nDCG@10 by words (arm 0) or by meaning (arm 1)."""
    return average(
        ndcg(list(rankings()[it.text][arm]), shelf().relevant(it)) for it in answerable(kind)
    )


def by_hand() -> float:
    """The share of questions whose best passage our own matrix product finds as the arm does."""
    matrix = embed([it.indexed for it in passages()])
    asked = [it.text for it in answerable("paraphrase")]
    best = np.argmax(embed(asked) @ matrix.T, axis=1) + 1  # passages count from 1
    return average(
        next(iter(rankings()[text][1])) == place for text, place in zip(asked, best, strict=True)
    )


def run() -> Result:
    return {
        "cosine, same meaning in other words": Claim(cosine(*SAME), 0.35, 0.9),
        "cosine, same words with another meaning": Claim(cosine(*OTHER), 0.2, 0.75),
        "one matrix product finds what the arm finds": Claim(by_hand(), 0.99, 1.0),
        "nDCG@10 by meaning, other words": Claim(quality("paraphrase", 1), 0.25, 0.65),
        "its gain over keywords there": Claim(
            quality("paraphrase", 1) - quality("paraphrase", 0), 0.02, 0.4
        ),
        "its loss against keywords, same words": Claim(
            quality("answerable", 0) - quality("answerable", 1), 0.0, 0.25
        ),
    }


EXERCISES = (
    Exercise("How many numbers is a text?", 384, lambda: embed(["any text"]).shape[1]),
    Exercise(
        "Is the vector of 'not good' far from that of 'good' (cosine below 0.5)?",
        False,
        lambda: cosine("not good", "good") < 0.5,
    ),
)
