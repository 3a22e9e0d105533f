"""Does a model answer better if it may think aloud, vote with itself, or look again?

A network does a fixed amount of work for each token. Who must say the answer at once has little of
it; who writes the steps down first has more, and reads its own results (arXiv:2201.11903). Answers
drawn several times may vote (arXiv:2203.11171): that cures slips, not errors that all draws share.
To look again only helps who can tell right from wrong. The small network shows none of this; the
scripted speaker, who does one addition a line and slips at times, shows where it comes from.
"""

from collections import Counter
from functools import cache

import numpy as np

from gateway.evals.statistics import Estimate
from lessons.chat import chat_text
from lessons.speakers import answers, complete, gain, user
from lessons.story import Claim, Exercise, Result

Sum = tuple[int, int, int]
NUMBER = "[0-9]{1,2}"
ASK = (
    "Tom has {} apples. He buys {} more and gives {} away. How many apples has he now? "
    "Answer with a number."
)
NUM_VOTES, SLIP = 3, 0.15


@cache
def sums() -> list[Sum]:
    drawn = np.random.default_rng(7).integers([3, 2, 1], [10, 10, 5], (12, 3))
    return [(int(a), int(b), int(c)) for a, b, c in drawn]


def right(said: list[str]) -> list[bool]:
    """
    >>> right([str(a + b - c) for a, b, c in sums()]) == [True] * 12
    True
    """
    return [text == str(a + b - c) for text, (a, b, c) in zip(said, sums(), strict=True)]


@cache
def at_once() -> list[str]:
    return answers([user(ASK.format(*it)) for it in sums()], 3, NUMBER)


def aloud(**knobs: float) -> list[str]:
    begun = [
        chat_text(user(ASK.format(*it))) + "Let us think step by step. Tom has" for it in sums()
    ]
    thought = [a + b for a, b in zip(begun, complete(begun, 24, **knobs), strict=True)]
    return complete([f"{it}\nSo the answer is " for it in thought], 3, NUMBER)


@cache
def once_aloud() -> list[str]:
    return aloud()


@cache
def by_vote() -> list[str]:
    drawn = [aloud(temperature=0.7, seed=seed) for seed in range(NUM_VOTES)]
    return [most(list(votes)) for votes in zip(*drawn, strict=True)]


@cache
def looked_again() -> list[str]:
    chats = [
        [*user(ASK.format(*it)), {"role": "assistant", "content": said},
         *user("Check your answer. If it is wrong, correct it. Answer with a number.")]
        for it, said in zip(sums(), at_once(), strict=True)
    ]  # fmt: skip
    return answers(chats, 3, NUMBER)


def most(votes: list[str]) -> str:
    """
    >>> most(["7", "8", "7"])
    '7'
    """
    return Counter(votes).most_common(1)[0][0]


class Adder:
    """A scripted speaker: one addition a line, and a slip in `slip` of them."""

    def __init__(self, slip: float, seed: int = 0) -> None:
        self._slip, self._rng = slip, np.random.default_rng(seed)

    def line(self, a: int, b: int) -> int:
        return a + b + int(self._rng.random() < self._slip)

    def at_once(self, it: Sum) -> str:
        return str(self.line(it[0], it[1]))

    def aloud(self, it: Sum) -> str:
        return str(self.line(self.line(it[0], it[1]), -it[2]))

    def looked_again(self, it: Sum) -> str:
        """Does it anew until the same comes twice."""
        before, again = "", self.aloud(it)
        while again != before:
            before, again = again, self.aloud(it)
        return again


def share(said: list[str]) -> float:
    return sum(right(said)) / len(said)


def network(before: list[str], after: list[str]) -> Estimate:
    return gain(right(before), right(after))


def run() -> Result:
    thinking, voting = network(at_once(), once_aloud()), network(once_aloud(), by_vote())
    again = network(at_once(), looked_again())
    adder = Adder(SLIP)
    votes = [most([adder.aloud(it) for _ in range(15)]) for it in sums()]
    once = [share([adder.aloud(it) for it in sums()]) for _ in range(50)]
    return {
        "network, at once": Claim(share(at_once()), 0, 0.5),
        "network, gain by thinking aloud, low end": Claim(thinking.low, -1, 0.2),
        "network, gain by thinking aloud, high end": Claim(thinking.high, 0, 1),
        "network, gain by voting, low end": Claim(voting.low, -1, 0),
        "network, gain by voting, high end": Claim(voting.high, 0, 1),
        "network, gain by looking again, low end": Claim(again.low, -1, 0),
        "network, gain by looking again, high end": Claim(again.high, 0, 1),
        "scripted, at once": Claim(share([adder.at_once(it) for it in sums()]), 0, 0.2),
        "scripted, thinking aloud": Claim(sum(once) / len(once), 0.65, 0.82),
        "scripted, thinking aloud, by vote of 15": Claim(share(votes), 0.95, 1),
        "scripted, looking again": Claim(share([adder.looked_again(it) for it in sums()]), 0.8, 1),
    }


EXERCISES = (
    Exercise(
        "All draws share one mistake, 8 for 7, but for a few: what do 99 of them elect?",
        "8",
        lambda: most(["8"] * 90 + ["7"] * 9),
    ),
    Exercise(
        "Without slips, does the scripted speaker need the second line?",
        True,
        lambda: (
            share([Adder(0).at_once(it) for it in sums()])
            < share([Adder(0).aloud(it) for it in sums()])
        ),
    ),
)
