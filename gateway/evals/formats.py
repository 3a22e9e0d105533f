"""Many ways to write one task that mean the same, and what may be said of the best of them.

A format is a choice of separator, joiner, casing, order, role and number of shots (after
arXiv:2310.11324). The best of many is partly the luckiest: its score on the cases that picked it is
biased upwards, so it is reported on others.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from gateway.evals.cases import Strict
from gateway.evals.statistics import Estimate, mean_of

SEPARATORS = (": ", " - ", " = ", ":\n", " >> ")
JOINERS = ("\n", "\n\n", " | ", "; ")
Casing = Literal["title", "lower", "upper"]
Placing = Literal["system", "user", "user, last"]
CASINGS: tuple[Casing, ...] = ("title", "lower", "upper")
PLACINGS: tuple[Placing, ...] = ("system", "user", "user, last")


class Shot(Strict):
    fields: dict[str, str]
    answer: str


class Task(Strict):
    """What all formats say: an instruction, names of the inputs and of the answer, examples."""

    instruction: str
    inputs: tuple[str, ...]
    output: str
    shots: tuple[Shot, ...] = ()


class Formats(Strict):
    """Every target is asked in `count` formats of the task; the inputs are a case's `fields`."""

    task: Task
    count: Annotated[int, Meta(ge=1)] = 50
    seed: int = 0


class Format(NamedTuple):
    separator: str
    joiner: str
    casing: Casing
    is_reversed: bool  # the inputs from the last to the first
    placing: Placing  # where the instruction stands
    num_shots: int


def grammar(task: Task) -> list[Format]:
    """All formats of a task. What its number of inputs or shots makes equal comes once."""
    orders = (False, True) if len(task.inputs) > 1 else (False,)
    shots = sorted({0, len(task.shots) // 2, len(task.shots)})
    options = (SEPARATORS, JOINERS, CASINGS, orders, PLACINGS, shots)
    return [Format(*it) for it in itertools.product(*options)]


def variants(formats: Formats) -> list[Format]:
    """`count` of them, drawn without repetition. Raises ValueError when there are not so many."""
    return random.Random(formats.seed).sample(grammar(formats.task), formats.count)  # noqa: S311


def render(task: Task, fields: Mapping[str, Any], it: Format) -> list[dict[str, Any]]:
    """The messages of one question in one format."""
    turns: list[dict[str, Any]] = []
    for shot in task.shots[: it.num_shots]:
        turns.append({"role": "user", "content": _lines(task, shot.fields, it)})
        turns.append({"role": "assistant", "content": shot.answer})
    turns.append({"role": "user", "content": _lines(task, fields, it)})
    if it.placing == "system":
        return [{"role": "system", "content": task.instruction}, *turns]
    place = 0 if it.placing == "user" else -1
    parts = [task.instruction, turns[place]["content"]]
    turns[place]["content"] = "\n\n".join(parts if place == 0 else reversed(parts))
    return turns


def _lines(task: Task, fields: Mapping[str, Any], it: Format) -> str:
    names = reversed(task.inputs) if it.is_reversed else task.inputs
    lines = [_cased(name, it.casing) + it.separator + str(fields[name]) for name in names]
    return it.joiner.join([*lines, _cased(task.output, it.casing) + it.separator.rstrip()])


def _cased(name: str, casing: Casing) -> str:
    return {"title": name.title(), "lower": name.lower(), "upper": name.upper()}[casing]


class Spread(NamedTuple):
    """Means over all cases of each format; the `winner` is the best on one half of the cases, and
    `confirmed` is its score on the other, with an interval."""

    means: list[float]
    winner: int
    selected: float
    confirmed: Estimate

    @property
    def width(self) -> float:
        return max(self.means) - min(self.means)

    @property
    def luck(self) -> float:
        return self.selected - self.confirmed.mean


def spread(
    scores: npt.NDArray[np.float64], clusters: Sequence[str] | None = None, seed: int = 0
) -> Spread:
    """`scores` [F formats, C cases]. Cases of one cluster stay in one half."""
    groups = np.unique(
        range(scores.shape[1]) if clusters is None else clusters, return_inverse=True
    )
    order = np.random.default_rng(seed).permutation(len(groups[0]))
    is_for_choice = (order < len(order) / 2)[groups[1]]
    chosen = scores[:, is_for_choice].mean(axis=1)
    winner = int(chosen.argmax())
    kept = (
        None
        if clusters is None
        else [c for c, it in zip(clusters, is_for_choice, strict=True) if not it]
    )
    confirmed = mean_of(scores[winner, ~is_for_choice], kept)
    return Spread(scores.mean(axis=1).tolist(), winner, float(chosen[winner]), confirmed)
