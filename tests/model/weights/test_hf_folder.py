"""Llamas and sentence encoders out of Hugging Face folders, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from model.network.minilm import reference_embed
from model.weights.errors import (
    MissingTensor,
    TruncatedFile,
    UnsupportedArchitecture,
    WeightsError,
    WrongShape,
)  # fmt: skip
from model.weights.hf_folder import load_encoder_folder, load_llama_folder
from model.weights.load import llama
from model.weights.tiny import tiny_minilm
from tests.model.weights.containers import CONFIG, TEMPLATE, WEIGHTS, write_folder


@pytest.mark.parametrize(("dtype", "shards"), [("F32", 1), ("F32", 3), ("F16", 1), ("BF16", 2)])
def test_every_number_format_and_shards(dtype: str, shards: int, tmp_path: Path) -> None:
    network = load_llama_folder(write_folder(tmp_path, dtype, shards=shards)).network
    assert network.config == CONFIG
    tolerance = {"F32": 0, "F16": 1e-3, "BF16": 1e-2}[dtype]
    for name in ("q_proj", "down_proj"):
        ours = getattr(network.weights.layers[1], name).dense()
        np.testing.assert_allclose(ours, WEIGHTS[f"layers.1.{name}"], rtol=tolerance, atol=1e-6)


def test_what_else_the_folder_says(tmp_path: Path) -> None:
    checkpoint = llama(str(write_folder(tmp_path)), None)
    assert checkpoint.chat_template == TEMPLATE
    assert checkpoint.stop_ids == {257, 10}
    assert checkpoint.sampling == {"temperature": 0.5}
    assert (checkpoint.tokenizer.bos_id, checkpoint.tokenizer.eos_id) == (256, 257)


def test_a_chat_template_of_its_own_file_wins(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "chat_template.jinja").write_text("another")
    assert load_llama_folder(folder).chat_template == "another"
    (folder / "chat_template.jinja").unlink()
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert load_llama_folder(folder).chat_template == "y"


def test_a_tied_head_needs_no_tensor(tmp_path: Path) -> None:
    weights = {name: w for name, w in WEIGHTS.items() if name != "lm_head"}
    folder = write_folder(tmp_path, weights=weights, tie_word_embeddings=True)
    assert load_llama_folder(folder).network.config.tie_embeddings
    copied = write_folder(tmp_path, shards=2, tie_word_embeddings=True)
    assert load_llama_folder(copied).network.config.tie_embeddings


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, UnsupportedArchitecture, "GemmaForCausalLM"),
        ({"attention_bias": True}, UnsupportedArchitecture, "attention_bias is True"),
        ({"hidden_act": "gelu"}, UnsupportedArchitecture, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, UnsupportedArchitecture, "quantization_config"),
        ({"rope_scaling": {"type": "yarn"}}, UnsupportedArchitecture, "'yarn'"),
        ({"intermediate_size": 97}, WrongShape, "gate_proj"),
        ({"num_hidden_layers": 1}, UnsupportedArchitecture, r"layers\.1"),
        ({"num_hidden_layers": 3}, MissingTensor, r"layers\.2"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    edit: dict[str, Any], error: type[WeightsError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        llama(str(write_folder(tmp_path, **edit)), None)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(MissingTensor, match=name):
        llama(str(folder), None)


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["rms_norm_eps"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingTensor, match="rms_norm_eps"):
        load_llama_folder(folder)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TruncatedFile, match="safetensors"):
            load_llama_folder(folder)


def test_an_unknown_number_format_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    eights = {"model.norm.weight": np.zeros(4, np.int8)}
    safetensors.numpy.save_file(eights, folder / "model.safetensors")
    with pytest.raises(UnsupportedArchitecture, match="I8"):
        load_llama_folder(folder)


def write_encoder(parent: Path, prefix: str = "", **edit: Any) -> Path:
    """The tiny random encoder as a folder."""
    network = tiny_minilm()
    sizes = network.config
    config = {
        "architectures": ["BertModel"],
        "vocab_size": sizes.vocab_size,
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.intermediate_size,
        "max_position_embeddings": sizes.num_positions,
        "layer_norm_eps": sizes.norm_eps,
        "hidden_act": "gelu",
    }
    named = {prefix + name: np.ascontiguousarray(w) for name, w in network.weights.items()}
    named[f"{prefix}pooler.dense.bias"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(named, parent / "model.safetensors")
    (parent / "config.json").write_text(json.dumps(config | edit))
    network.tokenizer.backend.save(str(parent / "tokenizer.json"))  # type: ignore[attr-defined]
    return parent


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_an_encoder_comes_back_as_it_was(prefix: str, tmp_path: Path) -> None:
    network = load_encoder_folder(write_encoder(tmp_path, prefix))
    assert network.config == tiny_minilm().config
    ids = network.tokenize(["some text"])
    np.testing.assert_allclose(
        network.embed(ids)[0], reference_embed(tiny_minilm(), ids[0]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"architectures": ["RobertaModel"]}, "RobertaModel"),
        ({"hidden_act": "gelu_new"}, "gelu_new"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
    ],
)
def test_another_encoder_is_refused(edit: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitecture, match=message):
        load_encoder_folder(write_encoder(tmp_path, **edit))


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}')
    with pytest.raises(UnsupportedArchitecture, match="pooling_mode_mean_tokens"):
        load_encoder_folder(folder)
