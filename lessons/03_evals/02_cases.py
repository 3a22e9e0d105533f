"""Which cases, and how many do we really have?

Cases are drawn from what users ask and from what must never go wrong, the second being rare: of an
error in every hundred answers, twenty cases show nothing four times in five. And cases are worth
most when they are independent. Three paraphrases of one question are not three questions: the
network knows the answer, or it does not. Counted as if they were, they give an error bar that is
too short; clustered, the bar is honest.
"""

from collections import Counter
from functools import cache
from math import ceil, log

from gateway.evals.cases import Answer
from gateway.evals.graders import Contains
from gateway.evals.statistics import Estimate, mean_of, wilson
from lessons.chat import chat_text
from lessons.speakers import cases, complete
from lessons.story import Claim, Exercise, Result


@cache
def scores() -> list[float]:
    """Of the paraphrases, by the words that a right answer contains."""
    asked = cases("robustness")
    said = complete([chat_text(it.turns()) for it in asked], 12)
    return [Contains().score(case, Answer(it)) for case, it in zip(asked, said, strict=True)]


def alone() -> Estimate:
    return mean_of(scores())


def clustered() -> Estimate:
    return mean_of(scores(), [it.cluster for it in cases("robustness")])


def worth() -> float:
    """How many independent cases the paraphrases are worth."""
    return len(scores()) * (alone().error / clustered().error) ** 2


def robust() -> float:
    """The share of questions that are answered rightly in all their forms or in none."""
    right: Counter[str] = Counter()
    for case, score in zip(cases("robustness"), scores(), strict=True):
        right[case.cluster] += int(score)
    return sum(it in (0, 3) for it in right.values()) / len(right)


def unseen(rate: float, num_cases: int) -> float:
    """The chance that an error of this rate shows in none of the cases.

    >>> round(unseen(0.01, 20), 2)
    0.82
    """
    return (1 - rate) ** num_cases


def needed_to_see(rate: float, chance: float = 0.95) -> int:
    """Cases that show an error of this rate at least once, at this chance.

    >>> needed_to_see(0.01)
    299
    """
    return ceil(log(1 - chance) / log(1 - rate))


def run() -> Result:
    return {
        "paraphrases": Claim(len(scores()), 36, 36),
        "answered rightly": Claim(alone().mean, 0.3, 0.8),
        "questions right in all forms or in none": Claim(robust(), 0.3, 0.95),
        "error bar, as if independent": Claim(alone().error, 0.07, 0.09),
        "error bar, three to a cluster": Claim(clustered().error, 0.08, 0.16),
        "independent cases that they are worth": Claim(worth(), 10, 34),
        "cases that show an error in a hundred": Claim(needed_to_see(0.01), 299, 299),
        "none wrong of 100: yet it may be, at most": Claim(1 - wilson(100, 100)[0], 0.03, 0.04),
    }


def twice() -> Estimate:
    """Every case put in a second time, as one cluster with its double."""
    return mean_of(scores() * 2, [*range(len(scores()))] * 2)


EXERCISES = (
    Exercise(
        "All cases are put in twice, each clustered with its double. How much shorter is the bar?",
        0.0,
        lambda: round(alone().error - twice().error, 12),
    ),
    Exercise(
        "An error in a thousand answers: how many cases until one shows, 19 times in 20?",
        2995,
        lambda: needed_to_see(0.001),
    ),
)
