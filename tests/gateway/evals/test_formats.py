"""Formats mean the same, are many and all different; the best of equals is only lucky."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evals.formats import Formats, Shot, Task, grammar, render, spread, variants

SHOTS = tuple(Shot(fields={"text": f"Text {i}", "place": "here"}, answer=f"a{i}") for i in range(4))
TASK = Task(instruction="Judge it.", inputs=("text", "place"), output="mood", shots=SHOTS)
FIELDS = {"text": "What a day", "place": "Oslo"}


def test_there_are_many_and_no_two_ask_the_same() -> None:
    made = variants(Formats(task=TASK, count=200))
    assert len({json.dumps(render(TASK, FIELDS, it)) for it in made}) == 200
    assert made == variants(Formats(task=TASK, count=200))
    with pytest.raises(ValueError, match="larger than population"):
        variants(Formats(task=TASK, count=10_000))


@given(st.sampled_from(grammar(TASK)))
def test_each_says_all_of_it_once(it: Any) -> None:
    turns = render(TASK, FIELDS, it)
    text = "\n".join(turn["content"] for turn in turns)
    for said in ("Judge it.", "What a day", "Oslo"):
        assert text.count(said) == 1
    assert [turn["content"] for turn in turns if turn["role"] == "assistant"] == [
        shot.answer for shot in SHOTS[: it.num_shots]
    ]
    assert turns[-1]["role"] == "user"
    assert (turns[0]["role"] == "system") == (it.placing == "system")


def test_the_winner_of_fifty_equals_is_confirmed_as_one_of_them() -> None:
    luck = []
    for seed in range(40):
        scores = (np.random.default_rng(seed).uniform(size=(50, 40)) < 0.6).astype(float)
        found = spread(scores, seed=seed)
        luck.append(found.luck)
        assert found.width > 0.1
    assert np.mean(luck) == pytest.approx(0.24, abs=0.06)


def test_a_real_winner_stays_one() -> None:
    scores = (np.random.default_rng(0).uniform(size=(5, 400)) < 0.5).astype(float)
    scores[3] = np.random.default_rng(1).uniform(size=400) < 0.9
    found = spread(scores)
    assert found.winner == 3
    assert found.confirmed.low > 0.8


def test_cases_of_one_cluster_stay_together() -> None:
    scores = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    found = spread(scores, ["a", "a", "b", "b"])
    assert (found.selected, found.confirmed.mean) == (1, 0)
