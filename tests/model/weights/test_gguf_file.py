"""Llamas out of GGUF: every number format, the row order of queries and keys, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.network.functional import rope, rope_table
from model.network.llama import reference_forward
from model.network.tensor import Tensor
from model.weights.errors import (
    MissingTensor,
    TruncatedFile,
    UnsupportedArchitecture,
    WeightsError,
    WrongShape,
)  # fmt: skip
from model.weights.gguf_file import half_split_rows, load_gguf
from model.weights.gguf_header import read_gguf
from model.weights.hf_folder import load_llama_folder
from model.weights.load import llama
from tests.model.weights.containers import (
    CONFIG,
    TEMPLATE,
    WEIGHTS,
    rounded,
    write_folder,
    write_gguf,
)

IDS = [72, 101, 108, 108, 111, 0, 257]


@pytest.mark.parametrize(
    "type_name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
)
def test_both_layouts_give_equal_logits(type_name: str, tmp_path: Path) -> None:
    from_gguf = load_gguf(write_gguf(tmp_path, type_name)).network
    from_folder = load_llama_folder(write_folder(tmp_path, weights=rounded(WEIGHTS, type_name)))
    assert from_gguf.config == from_folder.network.config == CONFIG
    ours = reference_forward(from_gguf, IDS)
    assert np.array_equal(ours, reference_forward(from_folder.network, IDS))


def rope_side_by_side(x: NDArray[np.float32], angles: NDArray[np.float32]) -> NDArray[np.float32]:
    """RoPE as llama.cpp computes it on GGUF rows: x [T, H, Dh] turned in pairs (2i, 2i + 1)."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None, :]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def test_row_order_keeps_every_attention_score() -> None:
    T, H, Dh, D = 5, 3, 8, 16
    rng = np.random.default_rng(1)
    x, query, key = (rng.standard_normal(s) for s in ((T, D), (H * Dh, D), (H * Dh, D)))
    cos, sin = rope_table(T, Dh, 100.0)
    order = half_split_rows(H, Dh)

    def scores(rotate: Any, q_rows: Any, k_rows: Any) -> Any:
        q, k = ((x @ rows.T).reshape(T, H, Dh) for rows in (q_rows, k_rows))
        return np.einsum("thd,shd->hts", rotate(q), rotate(k))

    angles = np.arctan2(sin, cos)
    in_file = scores(lambda v: rope_side_by_side(v, angles), query, key)
    in_network = scores(lambda v: rope(v, cos, sin), query[order], key[order])
    np.testing.assert_allclose(in_file, in_network, atol=1e-5)


def test_rows_are_reordered_without_decoding() -> None:
    raw = np.arange(12, dtype=np.uint8).reshape(4, 3)
    tensor = Tensor("q", (4, 5), "Q4_0", raw).with_rows([2, 0, 1, 3])
    assert tensor.raw.tolist() == raw[[2, 0, 1, 3]].tolist()
    assert tensor.shape == (4, 5)


def test_a_tensor_of_an_array_gives_the_array_back() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(Tensor.from_array("x", values).dequantize(), values)
    assert np.array_equal(Tensor.from_array("x", values[0]).dequantize(), values[0])


def test_what_else_the_file_says(tmp_path: Path) -> None:
    checkpoint = llama(str(write_gguf(tmp_path, "Q8_0")), None)
    assert checkpoint.name == "tiny.Q8_0"
    assert checkpoint.chat_template == TEMPLATE
    assert checkpoint.stop_ids == {257}
    assert checkpoint.tokenizer.encode("ab<|im_end|>") == [258, 257]


def test_the_head_may_be_tied(tmp_path: Path) -> None:
    weights = {name: w for name, w in WEIGHTS.items() if name != "lm_head"}
    network = load_gguf(write_gguf(tmp_path, weights=weights)).network
    assert network.config.tie_embeddings
    assert network.weights.lm_head is network.weights.embed_tokens


def test_the_header_reads_as_the_package_reads_it(tmp_path: Path) -> None:
    import gguf

    path = write_gguf(tmp_path, "Q4_1", extra__floats=[1.5, 2.5], extra__words=["a", "é"])
    fields, tensors = read_gguf(path)
    reader = gguf.GGUFReader(path)
    theirs = {name: field.contents() for name, field in reader.fields.items()}
    assert dict(fields) == {k: v for k, v in theirs.items() if not k.startswith("GGUF.")}
    assert list(tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        ours = tensors[tensor.name]
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        assert ours.type_name == tensor.tensor_type.name
        assert ours.raw.tobytes() == tensor.data.tobytes()


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path, "Q4_0").read_bytes()
    for size in (0, 3, 4, 20, 200, 3000, len(whole) // 2, len(whole) - 1):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(TruncatedFile, match=r"cut\.gguf"):
            load_gguf(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"something else altogether")
    with pytest.raises(TruncatedFile, match="GGUF"):
        llama(str(path), None)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ({"architecture": "qwen2"}, UnsupportedArchitecture, "'qwen2'"),
        ({"llama__expert_count": 8}, UnsupportedArchitecture, r"llama\.expert_count is 8"),
        ({"llama__rope__scaling__type": "yarn"}, UnsupportedArchitecture, "yarn"),
        ({"llama__rope__dimension_count": 8}, UnsupportedArchitecture, "dimension_count"),
        ({"tokenizer__ggml__pre": "unheard-of"}, UnsupportedArchitecture, "unheard-of"),
        ({"tokenizer__ggml__model": "t5"}, UnsupportedArchitecture, "t5"),
        ({"llama__attention__head_count_kv": 3}, UnsupportedArchitecture, "3 key-value heads"),
        ({"llama__feed_forward_length": 97}, WrongShape, "gate_proj"),
        ({"llama__block_count": 3}, MissingTensor, r"layers\.2\.input_norm"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    edit: dict[str, Any], error: type[WeightsError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        llama(str(write_gguf(tmp_path, **edit)), None)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    weights = {name: w for name, w in WEIGHTS.items() if name != "layers.1.down_proj"}
    with pytest.raises(MissingTensor, match=r"layers\.1\.down_proj"):
        load_gguf(write_gguf(tmp_path, weights=weights))


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    weights = WEIGHTS | {"blk.0.attn_q_norm": np.ones(8, np.float32)}
    with pytest.raises(UnsupportedArchitecture, match="attn_q_norm"):
        load_gguf(write_gguf(tmp_path, weights=weights))


def test_an_unreadable_quantisation_is_named(tmp_path: Path) -> None:
    tensor = Tensor("norm", (32,), "Q8_1", np.zeros((1, 36), np.uint8))
    with pytest.raises(ValueError, match="norm has the quantisation Q8_1"):
        tensor.dequantize()


def test_llama3_stretches_the_slow_frequencies(tmp_path: Path) -> None:
    stretch = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    from_folder = load_llama_folder(write_folder(tmp_path, rope_scaling=stretch)).network
    factors = from_folder.config.rope_factors
    assert (factors[0], factors[-1]) == (1, 8)
    assert list(factors) == sorted(factors)
    weights = WEIGHTS | {"rope_freqs": np.array(factors, np.float32)}
    from_gguf = load_gguf(write_gguf(tmp_path, weights=weights)).network
    (tmp_path / "plain").mkdir()
    plain = load_gguf(write_gguf(tmp_path / "plain")).network
    stretched, same, other = (
        reference_forward(network, IDS * 5) for network in (from_gguf, from_folder, plain)
    )
    np.testing.assert_allclose(stretched, same, atol=1e-6)
    assert np.abs(stretched - other).max() > 1e-4


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path)
    data = path.read_bytes().replace(b"llama.block_count", b"llama.block_tally")
    path.write_bytes(data)
    with pytest.raises(MissingTensor, match=r"llama\.block_count"):
        load_gguf(path)
