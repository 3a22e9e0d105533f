"""When is it better to give the model nothing?

A search always finds something: the nearest passage to a question that no passage answers is still
the nearest. Given to a model it is worse than nothing, for it looks like evidence. So a release has
a threshold, the cosine below which a passage is not relevant, and a rule for when none is. It is a
classifier with two kinds of errors, and no threshold has neither.

Good passages can disappoint, too. Of 161 questions that the topics answer, the shipped model of
135M weights says the gold sentence itself for 1 in 100 when asked bare, 4 with passages, the best
last (the gain's 95 % interval is 0.6 to 7.5), and 7 with the best first. Yet of that sentence's
words its answers tell no more, 26 and 27 in 100 against 29: it copies a sentence or misses it. And
an order by the question's likelihood under the same model finds nothing better (`make bench-rag`).
"""

from functools import cache

import numpy as np

from lessons.shelf import questions, rankings
from lessons.story import Claim, Exercise, Result


@cache
def best_cosines() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the questions that the shelf answers, and of those that it does not."""
    found: tuple[list[float], list[float]] = ([], [])
    for question in questions():
        found[not question.spans].append(max(rankings()[question.text][1].values()))
    return tuple(found[0]), tuple(found[1])


def passing(threshold: float) -> tuple[float, float]:
    """The shares of both kinds that get a context.

    >>> passing(-1.0)
    (1.0, 1.0)
    """
    yes, no = best_cosines()
    return float(np.mean(np.array(yes) >= threshold)), float(np.mean(np.array(no) >= threshold))


def chance_to_tell() -> float:
    """That an answerable question is nearer to its best passage than an unanswerable one."""
    yes, no = best_cosines()
    return float(np.mean(np.subtract.outer(np.array(yes), np.array(no)) > 0))


def run() -> Result:
    answered, fooled = passing(0.35)
    strict, still_fooled = passing(0.5)
    return {
        "chance that the cosine tells them apart": Claim(chance_to_tell(), 0.75, 1.0),
        "answerable that pass at 0.35": Claim(answered, 0.85, 1.0),
        "unanswerable that pass at 0.35": Claim(fooled, 0.1, 0.6),
        "answerable that pass at 0.50": Claim(strict, 0.5, 0.9),
        "unanswerable that pass at 0.50": Claim(still_fooled, 0.0, 0.25),
    }


EXERCISES = (
    Exercise(
        "Without any threshold, how large is the share of unanswerable questions with a context?",
        1.0,
        lambda: passing(-1.0)[1],
    ),
    Exercise(
        "Is there a threshold that errs on neither side here?",
        False,
        lambda: min(best_cosines()[0]) > max(best_cosines()[1]),
    ),
)
