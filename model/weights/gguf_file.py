"""A llama in a GGUF file.

Knows llama.cpp's names for a llama's tensors and metadata. GGUF stores the query and key rows of a
head in the order 0, d/2, 1, d/2 + 1, … (rotary pairs side by side); the networks here want the
halves one after the other, as Hugging Face does, so these rows are put back.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.tensor import Tensor
from model.tokenizer import Tokenizer
from model.weights.checkpoint import Checkpoint, build_llama
from model.weights.errors import MissingTensor, UnsupportedArchitecture
from model.weights.gguf_header import read_gguf
from model.weights.settings import Settings

ROPE = "rope_freqs.weight"
ENDS = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
IN_LAYER = {
    "attn_norm": "input_norm", "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj",
    "attn_output": "o_proj", "ffn_norm": "post_norm", "ffn_gate": "gate_proj", "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}  # fmt: skip
# What ends a turn or a text in models whose metadata names only one of several such tokens
STOP_TEXTS = {
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>",
}  # fmt: skip


def load_gguf(path: Path) -> Checkpoint:
    """The chat model in `path`; WeightsError if it is damaged or needs what is not here."""
    fields, tensors = read_gguf(path)
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedArchitecture(f"{path} holds a {architecture!r}; only 'llama' runs here")
    config = _config(fields, tensors)
    tokenizer = Tokenizer.from_gguf(fields)
    network = build_llama(config, _canonical(config, tensors))
    template = fields.get("tokenizer.chat_template")
    return Checkpoint(path.stem, network, tokenizer, template, _stop_ids(fields, tokenizer))


def _config(fields: Settings, tensors: Mapping[str, Tensor]) -> NetworkConfig:
    D, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    head_dim = fields.get("llama.attention.key_length", D // heads)
    fields.require({"llama.attention.value_length": head_dim, "llama.expert_count": 0})
    fields.require({"llama.rope.dimension_count": head_dim, "llama.rope.scaling.type": "none"})
    if "token_embd.weight" not in tensors:
        raise MissingTensor(f"{fields.source} has no token_embd.weight")
    return NetworkConfig(
        vocab_size=tensors["token_embd.weight"].shape[0],
        hidden_size=D,
        num_layers=fields["llama.block_count"],
        num_heads=heads,
        num_kv_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate_size=fields["llama.feed_forward_length"],
        context_length=fields["llama.context_length"],
        rope_base=fields.get("llama.rope.freq_base", 10_000.0),
        rms_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        tie_embeddings="output.weight" not in tensors,
        rope_factors=tuple(tensors[ROPE].dequantize().tolist()) if ROPE in tensors else (),
    )


def _canonical(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the network's names, query and key rows in the network's order."""
    found = {_canonical_name(name): tensor for name, tensor in tensors.items() if name != ROPE}
    for name, tensor in found.items():
        if name.endswith(("q_proj", "k_proj")):
            heads = config.num_heads if name.endswith("q_proj") else config.num_kv_heads
            found[name] = tensor.with_rows(half_split_rows(heads, config.head_dim))
    return found


def _canonical_name(name: str) -> str:
    """A name that is not known stays as it is, and is refused by it."""
    stem = name.removesuffix(".weight")
    head, _, rest = stem.partition(".")
    if head == "blk":
        layer, _, part = rest.partition(".")
        return f"layers.{layer}.{IN_LAYER[part]}" if part in IN_LAYER else name
    return ENDS.get(stem, name)


def half_split_rows(num_heads: int, head_dim: int) -> NDArray[np.intp]:
    """`order` such that rows[order] of a GGUF's query or key are in half-split order."""
    rows = np.arange(num_heads * head_dim).reshape(num_heads, head_dim // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def _stop_ids(fields: Settings, tokenizer: Tokenizer) -> frozenset[int]:
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    known = {i for i in tokenizer.special_ids if tokenizer.token_text(i) in STOP_TEXTS}
    return frozenset(known.union(fields[key] for key in keys if key in fields))
