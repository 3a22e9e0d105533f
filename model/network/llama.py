"""The llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, over a paged KV cache.

Alphabet: T tokens, D model width, H heads, K key-value heads, Dh head width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.network.batch import Batch
from model.network.config import NetworkConfig
from model.network.functional import attention, rms_norm, rope, rope_table, swiglu
from model.network.kv_storage import KVStorage
from model.network.linear import DenseLinear, Floats, Linear
from model.network.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one transformer layer."""

    input_norm: Floats
    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    o_proj: Linear
    post_norm: Floats
    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything that was learned."""

    embed_tokens: Linear
    layers: tuple[Layer, ...]
    norm: Floats
    lm_head: Linear  # the same object as embed_tokens where they are tied


class Llama:
    """A llama that computes one batch at a time."""

    def __init__(self, config: NetworkConfig, weights: Weights) -> None:
        """Prepare the rotary table for every position of the context."""
        self.config = config
        self.weights = weights
        self.cos, self.sin = rope_table(config.context_length, config.head_dim, config.rope_base)

    @classmethod
    def from_tensors(cls, config: NetworkConfig, tensors: Mapping[str, Tensor]) -> "Llama":
        """The llama of tensors under their canonical names (see `shapes`)."""
        linears: dict[str, Linear] = {}
        norms: dict[str, Floats] = {}
        for name, shape in shapes(config).items():
            if len(shape) == 1:
                norms[name] = tensors[name].dequantize()
            else:
                linears[name] = DenseLinear(tensors[name].dequantize())
        return assemble(config, linears, norms)

    def new_kv(self, num_blocks: int, block_size: int) -> KVStorage:
        """An empty KV pool of this network's shape."""
        return KVStorage(self.config, num_blocks, block_size)

    def forward(self, batch: Batch, kv: KVStorage) -> Floats:
        """Logits [R, V] at batch.logit_rows; writes the batch's keys and values into kv."""
        eps = self.config.rms_eps
        x = self.weights.embed_tokens.rows(batch.token_ids)
        for index, layer in enumerate(self.weights.layers):
            normed = rms_norm(x, layer.input_norm, eps).T
            x = x + self._attend(index, layer, normed, batch, kv).T
            normed = rms_norm(x, layer.post_norm, eps).T
            x = x + layer.down_proj(swiglu(layer.gate_proj(normed), layer.up_proj(normed))).T
        x = rms_norm(x[batch.logit_rows], self.weights.norm, eps)
        return np.ascontiguousarray(self.weights.lm_head(x.T).T)

    def _attend(self, index: int, layer: Layer, x: Floats, batch: Batch, kv: KVStorage) -> Floats:
        """Attention of layer `index`, [D, T] → [D, T]."""
        config, T = self.config, batch.num_tokens
        cos, sin = self.cos[batch.positions], self.sin[batch.positions]
        q = rope(layer.q_proj(x).T.reshape(T, config.num_heads, config.head_dim), cos, sin)
        k = rope(layer.k_proj(x).T.reshape(T, config.num_kv_heads, config.head_dim), cos, sin)
        v = layer.v_proj(x).T.reshape(T, config.num_kv_heads, config.head_dim)
        kv.write(index, batch.slots, k, v)
        mixed = np.empty_like(q)
        for b in range(batch.num_sequences):
            rows = slice(batch.query_starts[b], batch.query_starts[b + 1])
            keys, values = kv.read(index, batch.block_tables[b], int(batch.context_lens[b]))
            mixed[rows] = attention(q[rows], keys, values, batch.positions[rows])
        return layer.o_proj(np.ascontiguousarray(mixed.reshape(T, -1).T))


def reference_forward(network: Llama, token_ids: Sequence[int]) -> Floats:
    """Logits [T, V] of one sequence from its start: slow, obvious, without cache or blocks."""
    config, weights = network.config, network.weights
    T, Dh, eps = len(token_ids), config.head_dim, config.rms_eps
    positions = np.arange(T)
    cos, sin = rope_table(T, Dh, config.rope_base)
    x = weights.embed_tokens.dense()[np.asarray(token_ids)]
    for layer in weights.layers:
        normed = rms_norm(x, layer.input_norm, eps)
        q = rope((normed @ layer.q_proj.dense().T).reshape(T, config.num_heads, Dh), cos, sin)
        k = rope((normed @ layer.k_proj.dense().T).reshape(T, config.num_kv_heads, Dh), cos, sin)
        v = (normed @ layer.v_proj.dense().T).reshape(T, config.num_kv_heads, Dh)
        x = x + attention(q, k, v, positions).reshape(T, -1) @ layer.o_proj.dense().T
        normed = rms_norm(x, layer.post_norm, eps)
        gate, up = normed @ layer.gate_proj.dense().T, normed @ layer.up_proj.dense().T
        x = x + swiglu(gate, up) @ layer.down_proj.dense().T
    return rms_norm(x, weights.norm, eps) @ weights.lm_head.dense().T


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The canonical name and shape of every weight; lm_head only where it is not tied."""
    D, F = config.hidden_size, config.intermediate_size
    q_width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    per_layer: dict[str, tuple[int, ...]] = {
        "input_norm": (D,), "q_proj": (q_width, D), "k_proj": (kv_width, D),
        "v_proj": (kv_width, D), "o_proj": (D, q_width), "post_norm": (D,),
        "gate_proj": (F, D), "up_proj": (F, D), "down_proj": (D, F),
    }  # fmt: skip
    named = {
        f"layers.{i}.{name}": shape
        for i in range(config.num_layers)
        for name, shape in per_layer.items()
    }
    ends = {"embed_tokens": (config.vocab_size, D), "norm": (D,)}
    head = {} if config.tie_embeddings else {"lm_head": (config.vocab_size, D)}
    return {**ends, **head, **named}


def assemble(
    config: NetworkConfig, linears: Mapping[str, Linear], norms: Mapping[str, Floats]
) -> Llama:
    """The llama of weights under their canonical names."""
    projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    layers = tuple(
        Layer(
            input_norm=norms[f"layers.{i}.input_norm"],
            post_norm=norms[f"layers.{i}.post_norm"],
            **{name: linears[f"layers.{i}.{name}"] for name in projections},
        )
        for i in range(config.num_layers)
    )
    embed = linears["embed_tokens"]
    head = embed if config.tie_embeddings else linears["lm_head"]
    return Llama(config, Weights(embed, layers, norms["norm"], head))


def random_llama(config: NetworkConfig, seed: int) -> Llama:
    """A seeded untrained llama of any size, for tests and demonstrations."""
    rng = np.random.default_rng(seed)
    linears: dict[str, Linear] = {}
    norms: dict[str, Floats] = {}
    for name, shape in shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        if len(shape) == 1:
            norms[name] = 1 + values / np.float32(10)
        else:
            linears[name] = DenseLinear(values / np.float32(np.sqrt(shape[-1])))
    return assemble(config, linears, norms)
