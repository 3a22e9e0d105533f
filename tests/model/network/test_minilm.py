"""The sentence encoder: fast path, kernels and real weights against what they must equal."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network import minilm
from model.network import minilm_kernels as kernels
from model.network.minilm import reference_embed
from model.weights import load_minilm
from model.weights.tiny import tiny_minilm

TINY = tiny_minilm()
GOLDEN = Path(__file__).parents[2] / "goldens" / "minilm.npz"
sequences = st.lists(
    st.lists(st.integers(0, 257), min_size=1, max_size=40), min_size=1, max_size=8
)  # fmt: skip


@settings(max_examples=30)
@given(sequences)
def test_the_fast_path_equals_the_reference(batch: list[list[int]]) -> None:
    vectors = TINY.embed(batch)
    expected = np.stack([reference_embed(TINY, ids) for ids in batch])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@settings(max_examples=30)
@given(sequences)
def test_company_changes_nothing(batch: list[list[int]]) -> None:
    alone = np.concatenate([TINY.embed([ids]) for ids in batch])
    np.testing.assert_allclose(TINY.embed(batch), alone, atol=1e-5)


@pytest.mark.parametrize("blas_threads", ["1", "2"])
def test_batches_side_by_side_or_in_turn(
    blas_threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", blas_threads)
    monkeypatch.setattr(minilm, "num_threads", lambda: 3)
    network = tiny_minilm()
    sequences = [[i % 250] * 300 for i in range(20)]
    alone = np.concatenate([TINY.embed([ids]) for ids in sequences])
    np.testing.assert_allclose(network.embed(sequences), alone, atol=1e-5)


@given(st.lists(st.integers(1, 2 * minilm.BATCH_TOKENS), max_size=12), st.integers(1, 4))
def test_batches_keep_order_and_are_of_about_equal_length(lengths: list[int], width: int) -> None:
    sequences = [[i] * length for i, length in enumerate(lengths)]
    waves = minilm.waves(sequences, width)
    assert [ids for wave in waves for batch in wave for ids in batch] == sequences
    for wave in waves:
        assert 0 < len(wave) <= width
        for batch in wave:
            assert sum(map(len, batch)) <= minilm.BATCH_TOKENS + max(map(len, batch))


def test_the_work_can_be_left_after_each_layer() -> None:
    *pauses, vectors = TINY.steps([[1, 2, 3]])
    assert pauses == [None] * TINY.config.num_layers
    np.testing.assert_array_equal(vectors, TINY.embed([[1, 2, 3]]))


def test_texts_are_cut_and_may_be_empty() -> None:
    assert [len(ids) for ids in TINY.tokenize(["", "ab", "x" * 1000])] == [1, 3, 256]
    assert TINY.encode_texts(["", "ab", "x" * 1000]).shape == (3, 64)
    assert TINY.encode_texts([]).shape == (0, 64)


@pytest.mark.parametrize("ids", [[], [1] * 513])
def test_lengths_that_have_no_vector_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 512"):
        TINY.embed([[1, 2], ids])


@given(st.integers(1, 5), st.integers(1, 70), st.floats(0.1, 40))
def test_compiled_steps_equal_their_form_in_numpy(rows: int, columns: int, spread: float) -> None:
    rng = np.random.default_rng(rows * columns)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(spread)

    x, y, bias, gain, shift = draw(rows, columns), draw(rows, columns), *draw(3, columns)
    for compiled, in_numpy, arguments in (
        (kernels.softmax, kernels.softmax_numpy, (0.2,)),
        (kernels.bias_gelu, kernels.bias_gelu_numpy, (bias,)),
        (kernels.add_norm, kernels.add_norm_numpy, (y, bias, (gain, shift, 1e-5))),
    ):
        ours, theirs = x.copy(), x.copy()
        compiled(ours, *arguments)
        in_numpy(theirs, *arguments)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * spread)


def test_without_numba_the_numpy_forms_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "njit", None)
    assert kernels.compiled(kernels.softmax_numpy)(kernels.softmax) is kernels.softmax_numpy


def test_gelu_is_the_exact_form() -> None:
    x = np.linspace(-6, 6, 1001, dtype=np.float32)[:, None]
    expected = [[v / 2 * (1 + math.erf(v / math.sqrt(2)))] for v in x[:, 0].tolist()]
    kernels.bias_gelu(x, np.zeros(1, np.float32))
    np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.weights
def test_real_sentences_as_sentence_transformers_embeds_them() -> None:
    golden = np.load(GOLDEN)
    sentences = json.loads(golden["sentences"].tobytes())
    network = load_minilm("minilm")
    vectors = network.encode_texts(sentences)
    cosines = np.sum(vectors * golden["vectors"].astype(np.float32), axis=1)
    assert len(sentences) == 32
    assert cosines.min() >= 0.9999, sentences[int(cosines.argmin())]
    assert [len(ids) for ids in network.tokenize(sentences)] == golden["num_tokens"].tolist()


@pytest.mark.weights
def test_real_weights_on_the_fast_path_and_the_slow_one() -> None:
    network = load_minilm("minilm")
    ids = network.tokenize(["The fast path and the slow one agree.", "", "word " * 300])
    expected = np.stack([reference_embed(network, sequence) for sequence in ids])
    np.testing.assert_allclose(network.embed(ids), expected, atol=1e-5)
