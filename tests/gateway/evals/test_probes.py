"""Graders that ask: what they send, and what they make of the replies."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.evals.cases import Answer, Case
from gateway.evals.client import Reply, suffix_logprobs
from gateway.evals.probes import (
    Choice,
    Counterfactual,
    Judge,
    Labelled,
    Perplexity,
    Similarity,
    kappa,
    yes_share,
)

Body = dict[str, Any]


class Likely:
    """A subject whose texts have these log-probabilities."""

    def __init__(self, **logprobs: list[float]) -> None:
        self._logprobs = logprobs
        self.prefixes: list[str] = []

    async def likelihoods(self, prefixes: Sequence[str], texts: Sequence[str]) -> list[list[float]]:
        self.prefixes += prefixes
        found = [*map("".join, zip(prefixes, texts, strict=True))]
        return [self._logprobs[it.replace(" ", "_")] for it in found]


def test_the_likeliest_choice_with_length_forgiven() -> None:
    case = Case(id="x", question="a", choices=(" long", " b"))
    subject = Likely(a_long=[-1.0, -2.0], a_b=[-2.5])
    assert asyncio.run(Choice().probe(case, subject)) == 1
    assert asyncio.run(Choice(per_byte=False).probe(case, subject)) == 0


def test_one_over_the_perplexity() -> None:
    case = Case(id="x", question="a", continuation=" b")
    found = asyncio.run(Perplexity().probe(case, Likely(a_b=[math.log(0.5), math.log(0.125)])))
    assert found == pytest.approx(0.25)


@pytest.mark.parametrize(("gap", "score"), [(0, 1), (2, 1 - math.tanh(1)), (-2, 1 - math.tanh(1))])
def test_a_swap_that_does_not_matter_scores_one(gap: float, score: float) -> None:
    case = Case(id="x", question="{who} is", continuation=" good", swap=("Li", "Bo"))
    subject = Likely(Li_is_good=[-3.0], Bo_is_good=[-3.0 - gap])
    assert asyncio.run(Counterfactual().probe(case, subject)) == pytest.approx(score)
    assert subject.prefixes == ["Li is", "Bo is"]


def test_only_tokens_behind_the_prefix_count() -> None:
    logprobs = {
        "text_offset": [0, 2, 5],
        "tokens": ["ab", " cd", " e"],
        "token_logprobs": [None, -1.0, -2.0],
    }
    reply = Reply({"choices": [{"logprobs": logprobs}]}, 0, 0, 0, 0)
    assert suffix_logprobs(reply, ["ab cd"]) == [[-2.0]]
    assert suffix_logprobs(reply, ["ab"]) == [[-1.0, -2.0]]
    assert suffix_logprobs(reply, ["ab c"]) == [[-1.0, -2.0]]  # a token across the border
    assert suffix_logprobs(reply, [""]) == [[-1.0, -2.0]]


def test_nearest_of_what_is_expected(script: Callable[..., Any]) -> None:
    vectors = {"yes": [1, 0], "sure": [4, 3], "no": [-1, 0]}
    client = script(
        lambda path, body: {"data": [{"embedding": vectors[it]} for it in body["input"]]}
    )
    grader = Similarity(model="minilm")
    case = Case(id="x", expected=("no", "sure"))
    assert asyncio.run(grader.ask(case, Answer("yes"), client)) == pytest.approx(0.8)
    only_no = Case(id="x", expected=("no",))
    assert asyncio.run(grader.ask(only_no, Answer("yes"), client)) == 0


def top(**p: float) -> Body:
    tops = [{"token": token, "logprob": math.log(it)} for token, it in p.items()]
    return {
        "choices": [{"message": {"content": ""}, "logprobs": {"content": [{"top_logprobs": tops}]}}]
    }


def test_yes_among_yes_and_no_however_spelt() -> None:
    reply = Reply(top(Yes=0.3, yes=0.1, No=0.1, Maybe=0.5), 0, 0, 0, 0)
    assert yes_share(reply) == pytest.approx(0.8)
    plain = {"choices": [{"message": {"content": "No."}, "logprobs": None}]}
    assert yes_share(Reply(plain, 0, 0, 0, 0)) == 0
    assert yes_share(Reply(top(Maybe=1.0), 0, 0, 0, 0)) == 0.5


def test_a_judge_is_held_against_labels(script: Callable[..., Any]) -> None:
    labelled = [
        Labelled(q, a, good)
        for q, a, good in [
            ("q", "good", True),
            ("q", "bad", False),
            ("{answer}", "good", True),
            ("q", "bad", True),
        ]
    ]
    client = script(
        lambda path, body: top(
            yes=0.9 if "Answer: good" in body["messages"][0]["content"] else 0.1, no=0.2
        )
    )
    judge = Judge(model="m", labels="")
    # agreement 3 of 4, by chance 1/2 · 3/4 + 1/2 · 1/4
    assert asyncio.run(kappa(judge, labelled, client)) == pytest.approx((0.75 - 0.5) / (1 - 0.5))
    assert "Question: {answer}" in client.asked[2][1]["messages"][0]["content"]
