"""Reads llama-family checkpoints from GGUF files, as llama.cpp writes them.

Knows GGUF's names and its one peculiarity: rows of the query and key projections are permuted for
a rotary embedding of neighbours (2i, 2i + 1), while the network turns the halves (i, i + Dh/2).
The codes stay in the mapped file until the network's layers ask for them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.tensor import Tensor
from model.tokenizer import Tokenizer, UnsupportedTokenizer
from model.weights.checkpoint import Checkpoint, build_llama
from model.weights.errors import TruncatedFile, UnsupportedArchitecture

NAMES = {
    "attn_norm": "input_norm", "attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj",
    "attn_output": "o_proj", "ffn_norm": "post_norm", "ffn_gate": "gate_proj",
    "ffn_up": "up_proj", "ffn_down": "down_proj",
}  # fmt: skip
ENDS = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head"}
STOPS = ("eos", "eot", "eom")


def load(path: Path) -> Checkpoint:
    """The checkpoint in `path`. Raises WeightsError."""
    reader = _open(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = network_config(fields, {tensor.name for tensor in reader.tensors})
    tensors = {}
    for tensor in reader.tensors:
        name = canonical_name(tensor.name)
        tensors[name] = _tensor(name, tensor, config)
    try:
        tokenizer = Tokenizer.from_gguf(fields)
    except UnsupportedTokenizer as error:
        raise UnsupportedArchitecture(f"{path.name}: {error}") from error
    ids = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in STOPS)
    return Checkpoint(
        name=path.stem,
        network=build_llama(config, tensors),
        tokenizer=tokenizer,
        chat_template=fields.get("tokenizer.chat_template"),
        stop_ids=frozenset(i for i in ids if i is not None),
    )


def network_config(fields: Mapping[str, Any], tensor_names: set[str]) -> NetworkConfig:
    """The sizes that the metadata names. Raises UnsupportedArchitecture."""
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedArchitecture(f"architecture {architecture!r} (supported: llama)")
    scaling = fields.get("llama.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in tensor_names:
        raise UnsupportedArchitecture("scaled rotary positions are not supported")
    if fields.get("llama.expert_count"):
        raise UnsupportedArchitecture("a mixture of experts is not supported")
    try:
        hidden, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
        return NetworkConfig(
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            hidden_size=hidden,
            num_layers=fields["llama.block_count"],
            num_heads=heads,
            num_kv_heads=fields.get("llama.attention.head_count_kv", heads),
            head_dim=fields.get("llama.attention.key_length", hidden // heads),
            intermediate_size=fields["llama.feed_forward_length"],
            context_length=fields["llama.context_length"],
            rope_base=fields.get("llama.rope.freq_base", 10_000.0),
            rms_eps=fields["llama.attention.layer_norm_rms_epsilon"],
            tie_embeddings="output.weight" not in tensor_names,
        )
    except KeyError as error:
        raise UnsupportedArchitecture(f"the metadata {error} is missing") from error


def canonical_name(name: str) -> str:
    """ "blk.3.attn_q.weight" → "layers.3.q_proj"; unknown names pass as they are."""
    parts = name.removesuffix(".weight").split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in NAMES:
        return f"layers.{parts[1]}.{NAMES[parts[2]]}"
    return ENDS.get(".".join(parts), name)


def half_split_rows(num_heads: int, head_dim: int) -> NDArray[np.intp]:
    """Row i of the half-split layout is row order[i] of GGUF's, head by head."""
    order = np.arange(num_heads * head_dim).reshape(num_heads, head_dim // 2, 2)
    return order.swapaxes(1, 2).ravel()


def _open(path: Path) -> GGUFReader:
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise TruncatedFile(f"{path.name} is no whole GGUF file: {error}") from error
    for tensor in reader.tensors:
        if tensor.data.nbytes != tensor.n_bytes:
            raise TruncatedFile(f"{path.name} ends inside {tensor.name}")
    return reader


def _tensor(name: str, tensor: ReaderTensor, config: NetworkConfig) -> Tensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))
    rows = shape[0] if len(shape) > 1 else 1
    raw = np.asarray(tensor.data).view(np.uint8).reshape(rows, -1)
    made = Tensor(name, shape, tensor.tensor_type.name, raw)
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}
    num_heads = heads.get(name.rpartition(".")[2])
    if num_heads is None or rows != num_heads * config.head_dim:
        return made
    return made.with_rows(half_split_rows(num_heads, config.head_dim))
