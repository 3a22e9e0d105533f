"""Same words, another colon: how much does the format of a prompt matter?

A grammar makes hundreds of formats that mean the same: separators, casing, order, place of the
instruction, examples. For a small network the best and the worst of six are far apart
(arXiv:2310.11324), so one prompt's score says little about a model. And the best of many has also
been the luckiest: its score on the cases that picked it is too good, even among equals. So it is
confirmed on others.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from gateway.evals.formats import Format, Formats, Shot, Spread, Task, grammar, render, spread
from gateway.evals.formats import variants as drawn
from lessons.speakers import answers, cases
from lessons.story import Claim, Exercise, Result

TASK = Task(
    instruction="Judge the mood of the text. Answer with one word: positive or negative.",
    inputs=("text",),
    output="mood",
    shots=(
        Shot(fields={"text": "The soup was cold again."}, answer="negative"),
        Shot(fields={"text": "What a lovely day."}, answer="positive"),
    ),
)
NUM_CASES = 20
Scores = npt.NDArray[np.float64]


@cache
def variants() -> list[Format]:
    return drawn(Formats(task=TASK, count=6))


@cache
def network() -> Scores:
    """[formats, cases]: 1 where the one word that it may say is the right one."""
    asked = cases("mood")[:NUM_CASES]
    rows = []
    for it in variants():
        chats = [render(TASK, case.fields, it) for case in asked]
        said = answers(chats, 4, regex="positive|negative")
        rows.append([float(text in case.expected) for text, case in zip(said, asked, strict=True)])
    return np.array(rows)


def equals(num_prompts: int = 50, num_cases: int = 40, skill: float = 0.7, seed: int = 0) -> Scores:
    """A scripted speaker that is right by a coin of `skill`, whatever the prompt."""
    draws = np.random.default_rng(seed).random((num_prompts, num_cases))
    return (draws < skill).astype(float)


@cache
def contest() -> list[Spread]:
    """Fifty identical prompts compete, twenty times over."""
    return [spread(equals(seed=seed), seed=seed) for seed in range(20)]


def mean(values: list[float]) -> float:
    """
    >>> mean([1.0, 2.0])
    1.5
    """
    return sum(values) / len(values)


def run() -> Result:
    found = spread(network())
    return {
        "formats that the grammar makes": Claim(len(grammar(TASK)), 50, 1000),
        "network: worst of 6 formats": Claim(min(found.means), 0.3, 0.65),
        "network: best of 6 formats": Claim(max(found.means), 0.55, 1),
        "network: spread": Claim(found.width, 0.05, 0.7),
        "50 equals of 0.7: the winner's score": Claim(
            mean([it.selected for it in contest()]), 0.85, 1
        ),
        "50 equals of 0.7: the same, on other cases": Claim(
            mean([it.confirmed.mean for it in contest()]), 0.63, 0.77
        ),
        "50 equals of 0.7: spread": Claim(mean([it.width for it in contest()]), 0.2, 0.45),
    }


EXERCISES = (
    Exercise(
        "A speaker who is always right: how large is the spread of its formats?",
        0.0,
        lambda: spread(equals(skill=1.1)).width,
    ),
    Exercise(
        "Among 50 equals, does the winner lose more with 20 cases to pick it or with 200?",
        20,
        lambda: (
            20 if spread(equals(num_cases=40)).luck > spread(equals(num_cases=400)).luck else 200
        ),
    ),
)
