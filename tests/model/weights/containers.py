"""Writes checkpoints of a tiny random llama in every container, with the same weights in each."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.llama import shapes
from model.tokenizer import BYTE_OF, Tokenizer
from model.weights import gguf_file, hf_folder

CONFIG = NetworkConfig(
    vocab_size=259, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    intermediate_size=96, context_length=64, rope_base=5000.0, rms_eps=2.0**-20,
    tie_embeddings=False,
)  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
Weights = dict[str, NDArray[np.float32]]


def random_weights() -> Weights:
    """Random weights under their canonical names."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape, np.float32) / np.float32(8)
        for name, shape in shapes(CONFIG).items()
    }


WEIGHTS = random_weights()


def rounded(weights: Weights, type_name: str) -> Weights:
    """The matrices after a way through a quantisation."""
    type_ = GGMLQuantizationType[type_name]
    return {
        name: w if w.ndim == 1 else quants.dequantize(quants.quantize(w, type_), type_)
        for name, w in weights.items()
    }


def interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """A query or key in the row order of GGUF: rotary partners next to each other."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def name_in(table: dict[str, str], form: str, canonical: str) -> str:
    """The name of a layer's weight in a container, by the reader's own table."""
    _, layer, part = canonical.split(".")
    (name,) = [name for name, value in table.items() if value == part]
    return form.format(layer, name)


def write_gguf(
    folder: Path, type_name: str = "F32", weights: Weights = WEIGHTS, **edit: Any
) -> Path:
    """Write a GGUF of that quantisation; `edit` changes metadata, with "__" for a dot."""
    path = folder / f"tiny.{type_name}.gguf"
    writer = gguf.GGUFWriter(path, edit.pop("architecture", "llama"))
    for key, value in (METADATA | {key.replace("__", "."): edit[key] for key in edit}).items():
        _add(writer, key, value)
    for canonical, values in weights.items():
        name, rows = _gguf_name(canonical), values
        if canonical.endswith("q_proj"):
            rows = interleaved(values, CONFIG.num_heads)
        if canonical.endswith("k_proj"):
            rows = interleaved(values, CONFIG.num_kv_heads)
        type_ = GGMLQuantizationType["F32" if values.ndim == 1 else type_name]
        writer.add_tensor(name, quants.quantize(rows, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(canonical: str) -> str:
    if canonical.startswith("layers."):
        return name_in(gguf_file.IN_LAYER, "blk.{}.{}.weight", canonical)
    ends = {name: own for own, name in gguf_file.ENDS.items()}
    return f"{ends.get(canonical, canonical)}.weight"


METADATA: dict[str, Any] = {
    "llama.block_count": CONFIG.num_layers,
    "llama.context_length": CONFIG.context_length,
    "llama.embedding_length": CONFIG.hidden_size,
    "llama.feed_forward_length": CONFIG.intermediate_size,
    "llama.attention.head_count": CONFIG.num_heads,
    "llama.attention.head_count_kv": CONFIG.num_kv_heads,
    "llama.rope.freq_base": CONFIG.rope_base,
    "llama.attention.layer_norm_rms_epsilon": CONFIG.rms_eps,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": [*BYTE_OF, "<|im_start|>", "<|im_end|>", "ab"],
    "tokenizer.ggml.token_type": [1] * 256 + [3, 3, 1],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 256,
    "tokenizer.ggml.eos_token_id": 257,
    "tokenizer.chat_template": TEMPLATE,
}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](key, value)


def write_folder(
    parent: Path, dtype: str = "F32", weights: Weights = WEIGHTS, shards: int = 1, **edit: Any
) -> Path:
    """Write a folder in Hugging Face's layout; `edit` changes config.json."""
    folder = parent / f"tiny-{dtype}-{shards}"
    folder.mkdir()
    _save(folder, {_hf_name(name): values for name, values in weights.items()}, dtype, shards)
    (folder / "config.json").write_text(json.dumps(HF_CONFIG | edit))
    Tokenizer.byte_level().backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    generation = {"eos_token_id": [257, 10], "temperature": 0.5, "top_k": None}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def _hf_name(canonical: str) -> str:
    if canonical == "lm_head":
        return "lm_head.weight"
    if canonical.startswith("layers."):
        return name_in(hf_folder.IN_LAYER, "model.layers.{}.{}.weight", canonical)
    return f"model.{canonical}.weight"


HF_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": CONFIG.vocab_size,
    "hidden_size": CONFIG.hidden_size,
    "num_hidden_layers": CONFIG.num_layers,
    "num_attention_heads": CONFIG.num_heads,
    "num_key_value_heads": CONFIG.num_kv_heads,
    "intermediate_size": CONFIG.intermediate_size,
    "max_position_embeddings": CONFIG.context_length,
    "rope_theta": CONFIG.rope_base,
    "rms_norm_eps": CONFIG.rms_eps,
    "tie_word_embeddings": CONFIG.tie_embeddings,
    "bos_token_id": 256,
}


def _save(folder: Path, named: Weights, dtype: str, shards: int) -> None:
    names = list(named)
    parts = [names[i::shards] for i in range(shards)]
    files = [f"model-{i}.safetensors" if shards > 1 else "model.safetensors" for i in range(shards)]
    for file, part in zip(files, parts, strict=True):
        (folder / file).write_bytes(safetensors({name: named[name] for name in part}, dtype))
    if shards > 1:
        index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        text = json.dumps({"weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text)


def safetensors(named: Weights, dtype: str) -> bytes:
    """A file by hand: the package's writer for numpy has no bfloat16."""
    header, data = {}, b""
    for name, values in named.items():
        raw = {
            "F32": values,
            "F16": values.astype(np.float16),
            "BF16": (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16),
        }[dtype].tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
