"""Measures of words equal sacrebleu's and rouge-score's."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evals.overlap import bleu, normal, rouge_l, token_f1

PAIRS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "goldens" / "evals.json").read_text()
)["pairs"]
TEXT = st.text(st.sampled_from("abc ABC.,1-"), max_size=30)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda it: it["answer"][:12])
def test_equals_the_oracles(pair: dict[str, Any]) -> None:
    words = pair["answer"], pair["reference"]
    assert bleu(*words) == pytest.approx(pair["bleu"], abs=1e-9)
    assert rouge_l(*words) == pytest.approx(pair["rouge_l"], abs=1e-9)


def test_token_f1_by_hand() -> None:
    assert token_f1("The cat sat", "a cat, sitting") == pytest.approx(2 * 1 / (2 + 2))
    assert token_f1("yes yes no", "yes no no") == pytest.approx(2 * 2 / (3 + 3))
    assert token_f1("", "the") == 0
    assert token_f1("The.", "the") == 1
    assert token_f1("", "cat") == 0


def test_what_normal_leaves() -> None:
    assert normal("  The Answer: is A 'dog'! ") == "answer is dog"


@given(TEXT, TEXT)
def test_all_are_shares_and_one_for_the_same(a: str, b: str) -> None:
    for measure in (bleu, rouge_l, token_f1):
        assert 0 <= measure(a, b) <= 1 + 1e-12
    assert token_f1(a, b) == token_f1(b, a)
    if normal(a):
        assert token_f1(a, a) == 1
