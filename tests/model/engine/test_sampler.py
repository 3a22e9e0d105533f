from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.logprobs import Row, token_logprobs, top_ids
from model.engine.sampler import (
    NothingToSample,
    apply_rules,
    candidates,
    choose,
    draw,
    reference_probabilities,
)
from model.engine.sequence import Request, SamplingParams, Sequence
from model.engine.text import TextStream
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
V = 600  # more than two panels


def sequence_of(
    prompt: tuple[int, ...] = (1,), output: tuple[int, ...] = (), seed: int = 0, **params: Any
) -> Sequence:
    request = Request(id="r", prompt_ids=list(prompt), params=SamplingParams(**params))
    bad_words = tuple(tuple(word.encode()) for word in params.get("bad_words", ()))
    sequence = Sequence(
        request=request,
        index=0,
        text=TextStream(BYTES),
        eos_ids=frozenset({257}),
        max_num_tokens=1000,
        arrived=0.0,
        bad_words=bad_words,
        rng=None if request.params.is_greedy else np.random.default_rng(seed),
    )
    for token_id in output:
        sequence.accept(token_id)
    return sequence


# a coarse grid makes ties common
rows = st.lists(st.integers(-12, 12), min_size=V, max_size=V).map(
    lambda values: np.array(values, np.float32) / 4
)
small_ids = st.integers(0, 20)
settings_of_sampling = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 1.0, 2.5]),
        "top_p": st.sampled_from([0.1, 0.5, 0.9, 0.999]),
        "top_k": st.sampled_from([-1, 1, 2, 40, V, 2 * V]),
        "min_p": st.sampled_from([0.05, 0.5, 1.0]),
        "repetition_penalty": st.sampled_from([0.7, 1.3]),
        "presence_penalty": st.sampled_from([-1.0, 0.5]),
        "frequency_penalty": st.sampled_from([-0.5, 1.5]),
        "logit_bias": st.dictionaries(small_ids, st.sampled_from([-100.0, 5.0]), max_size=2),
        "allowed_token_ids": st.lists(small_ids, min_size=4, max_size=8).map(tuple),
        "min_tokens": st.just(6),
        "stop_token_ids": st.frozensets(small_ids, max_size=2),
    },
)


def random_row(seed: int, size: int = V) -> Row:
    return np.random.default_rng(seed).standard_normal(size, np.float32) * 2


@given(rows, settings_of_sampling, st.lists(small_ids, max_size=6))
def test_candidates_agree_with_the_reference(
    raw: Row, params: dict[str, Any], output: list[int]
) -> None:
    sequence = sequence_of((3, 4), tuple(output), **params)
    expected = reference_probabilities(raw, sequence)
    logits = apply_rules(raw, sequence)
    if sequence.params.is_greedy:
        assert choose(raw, int(raw.argmax()), sequence) == expected.argmax()
        return
    ids, weights = candidates(logits, sequence.params)
    found = np.zeros(V)
    found[ids] = weights / weights.sum(dtype=np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.3, "top_p": 0.9, "top_k": 50}])
def test_drawn_frequencies_match_the_softmax(params: dict[str, float]) -> None:
    raw, draws = random_row(1), 20_000
    sequence = sequence_of(seed=7, **params)
    drawn = Counter(choose(raw, int(raw.argmax()), sequence) for _ in range(draws))
    observed = np.array([drawn[token_id] for token_id in range(V)])
    expected = reference_probabilities(raw, sequence) * draws
    rare = expected < 5  # too few for the statistic: one cell together
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    freedom = len(expected) - 1
    assert freedom >= 10
    chi_square = ((observed - expected) ** 2 / expected).sum()
    # mean and deviation of a chi-square variable
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=700), st.floats(0, 0.999999))
def test_draw_is_the_inverse_of_the_running_sum(weights: list[float], uniform: float) -> None:
    weights[0] += 0.5
    sums = np.cumsum(weights)
    picked = draw(np.array(weights, np.float32), uniform)
    assert weights[picked] > 0
    assert picked == np.searchsorted(sums, uniform * sums[-1], side="right")


def test_the_seed_alone_decides() -> None:
    raw = random_row(2)
    first, second, other = (sequence_of(seed=seed) for seed in (5, 5, 6))
    drawn = [[choose(raw, 0, s) for _ in range(20)] for s in (first, second, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_penalties_and_bias_are_what_they_say() -> None:
    raw = np.full(V, 2, np.float32)
    raw[5] = -2
    params: dict[str, Any] = {
        "repetition_penalty": 2.0, "frequency_penalty": 0.25, "presence_penalty": 0.5,
        "logit_bias": {7: 3.0, 8: -3.0},
    }  # fmt: skip
    logits = apply_rules(raw, sequence_of((4, 5), (6, 7, 7), **params))
    seen = {4: 1, 5: -4, 6: 1 - 0.25 - 0.5, 7: 2.5 - 2 * 0.25 - 0.5, 8: -1, 9: 2}
    assert {i: logits[i] for i in seen} == seen
    assert (raw == 2).sum() == V - 1


def test_allowed_ids_are_all_there_is() -> None:
    logits = apply_rules(random_row(1), sequence_of(allowed_token_ids=(3, 9)))
    assert np.flatnonzero(logits > -np.inf).tolist() == [3, 9]


def test_bad_words_lose_their_last_token_only_after_the_others() -> None:
    raw = np.zeros(V, np.float32)
    fresh = apply_rules(raw, sequence_of(bad_words=("ab", "c")))
    assert fresh[ord("c")] == -np.inf
    assert fresh[ord("b")] == 0
    assert apply_rules(raw, sequence_of(output=b"xa", bad_words=("ab",)))[ord("b")] == -np.inf
    # the prompt is not the answer's word
    assert apply_rules(raw, sequence_of(prompt=b"a", bad_words=("ab",)))[ord("b")] == 0


def test_ends_are_forbidden_before_min_tokens() -> None:
    raw = np.zeros(V, np.float32)
    params: dict[str, Any] = {"min_tokens": 2, "stop_token_ids": frozenset({9})}
    assert (apply_rules(raw, sequence_of(output=(1,), **params))[[9, 257]] == -np.inf).all()
    assert (apply_rules(raw, sequence_of(output=(1, 1), **params))[[9, 257]] == 0).all()


def test_bad_rows_are_errors() -> None:
    raw = np.zeros(V, np.float32)
    raw[5] = np.nan
    with pytest.raises(NothingToSample, match="not finite"):
        choose(raw, int(raw.argmax()), sequence_of(temperature=0.0))
    everything = sequence_of(allowed_token_ids=(97,), bad_words=("a",))
    with pytest.raises(NothingToSample, match="leave no token"):
        choose(np.zeros(V, np.float32), 0, everything)


@pytest.mark.parametrize("size", [3, 256, 1000, 49_152])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_top_ids_equal_a_full_sort(size: int, count: int) -> None:
    values = random_row(3, size)
    assert top_ids(values, count).tolist() == np.argsort(-values)[:count].tolist()


def test_logprobs_are_the_raw_softmax() -> None:
    raw = random_row(4)
    exact = np.log(np.exp(raw.astype(np.float64)) / np.exp(raw.astype(np.float64)).sum())
    entry = token_logprobs(raw, 17, 3)
    assert entry.logprob == pytest.approx(exact[17], abs=1e-5)
    assert entry.rank == 1 + (exact > exact[17]).sum()
    assert [i for i, _ in entry.top] == np.argsort(-exact)[:3].tolist()
    assert [p for _, p in entry.top] == pytest.approx(np.sort(exact)[::-1][:3], abs=1e-5)


def test_draw_never_picks_what_weighs_nothing() -> None:
    weights = np.zeros(V, np.float32)
    weights[[3, 400]] = 0.1, 0.3
    assert draw(weights, 0.0) == 3
    assert draw(weights, np.nextafter(1, 0)) == 400
