"""The llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU, over a paged KV cache.

Packed weights are multiplied by compiled kernels where numba is installed; everything else goes
through plain numpy, with the same values. `reference_forward` is what both must agree with.
Alphabet: T tokens, D model width, H heads, K key-value heads, Dh head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from model.network.batch import Batch
from model.network.config import NetworkConfig
from model.network.functional import attention, rms_norm, rope, rope_table, swiglu
from model.network.kv_storage import KVStorage
from model.network.linear import DenseLinear, Floats, Linear
from model.network.llama_weights import Layer, Weights, shapes
from model.network.lora import Adapter, Segment, segments_of
from model.network.panels import PackedLinear, pack
from model.network.tensor import Tensor

if TYPE_CHECKING:
    from model.network.compiled_llama import CompiledLlama

Projection = Callable[[str, Floats], Floats]  # by name, [in, T] → [out, T]

__all__ = ["Llama", "random_llama", "reference_forward", "shapes"]


class Llama:
    """A llama that computes one batch at a time."""

    def __init__(self, config: NetworkConfig, weights: Weights) -> None:
        """Prepare the rotary table for every position of the context."""
        self.config = config
        self.weights = weights
        self.cos, self.sin = rope_table(
            config.context_length, config.head_dim, config.rope_base, config.rope_factors
        )
        self.adapters: dict[str, Adapter] = {}  # by the names that batches use
        self._compiled = self._compile()

    @classmethod
    def from_tensors(cls, config: NetworkConfig, tensors: Mapping[str, Tensor]) -> Llama:
        """The llama of tensors under their canonical names (see `shapes`), kept as they are."""
        linears: dict[str, Linear] = {}
        norms: dict[str, Floats] = {}
        for name, shape in shapes(config).items():
            if len(shape) == 1:
                norms[name] = tensors[name].dequantize().copy()  # or the whole file stays mapped
            else:
                linears[name] = pack(tensors[name])
        return cls(config, Weights.from_named(config, linears, norms))

    @property
    def is_compiled(self) -> bool:
        """Whether `forward` runs in compiled kernels."""
        return self._compiled is not None

    def new_kv(self, num_blocks: int, block_size: int) -> KVStorage:
        """An empty KV pool of this network's shape."""
        return KVStorage(self.config, num_blocks, block_size)

    def forward(self, batch: Batch, kv: KVStorage) -> Floats:
        """Logits [R, V] at batch.logit_rows; writes the batch's keys and values into kv.

        Raises KeyError for an adapter that is not in `adapters`.
        """
        if self._compiled:
            return self._compiled.forward(batch, kv, segments_of(batch, self.adapters))
        return self.forward_in_numpy(batch, kv)

    def forward_in_numpy(self, batch: Batch, kv: KVStorage) -> Floats:
        """`forward` without compiled kernels."""
        eps = self.config.rms_eps
        segments = segments_of(batch, self.adapters)
        x = self.weights.embed_tokens.rows(batch.token_ids)
        for index, layer in enumerate(self.weights.layers):
            project = partial(_project, segments, index, layer)
            normed = rms_norm(x, layer.input_norm, eps).T
            x = x + self._attend(index, project, normed, batch, kv).T
            normed = rms_norm(x, layer.post_norm, eps).T
            inner = swiglu(project("gate_proj", normed), project("up_proj", normed))
            x = x + project("down_proj", inner).T
        x = rms_norm(x[batch.logit_rows], self.weights.norm, eps)
        return np.ascontiguousarray(self.weights.lm_head(x.T).T)

    def _attend(
        self, index: int, project: Projection, x: Floats, batch: Batch, kv: KVStorage
    ) -> Floats:
        """Attention of layer `index`, [D, T] → [D, T]."""
        config, T = self.config, batch.num_tokens
        cos, sin = self.cos[batch.positions], self.sin[batch.positions]
        q = rope(project("q_proj", x).T.reshape(T, config.num_heads, config.head_dim), cos, sin)
        k = rope(project("k_proj", x).T.reshape(T, config.num_kv_heads, config.head_dim), cos, sin)
        v = project("v_proj", x).T.reshape(T, config.num_kv_heads, config.head_dim)
        kv.write(index, batch.slots, k, v)
        mixed = np.empty_like(q)
        for b in range(batch.num_sequences):
            rows = slice(batch.query_starts[b], batch.query_starts[b + 1])
            keys, values = kv.read(index, batch.block_tables[b], int(batch.context_lens[b]))
            mixed[rows] = attention(q[rows], keys, values, batch.positions[rows])
        return project("o_proj", np.ascontiguousarray(mixed.reshape(T, -1).T))

    def _compile(self) -> CompiledLlama | None:
        """The compiled form, if every weight is packed and there is a compiler."""
        linears = [self.weights.lm_head, *(w for x in self.weights.layers for w in x.projections())]
        if not all(isinstance(linear, PackedLinear) for linear in linears):
            return None
        try:
            # here, because numba takes half a second to import and small networks do without it
            from model.network.compiled_llama import CompiledLlama
        except ModuleNotFoundError as error:
            if error.name != "numba":
                raise
            return None
        return CompiledLlama(self.config, self.weights, self.cos, self.sin)


def _project(segments: list[Segment], index: int, layer: Layer, name: str, x: Floats) -> Floats:
    """W @ x by the layer's projection `name`, with what adapters add to their tokens' columns."""
    y: Floats = getattr(layer, name)(x)
    for first, last, adapter in segments:
        if change := adapter.changes.get((index, name)):
            y[:, first:last] += change(x[:, first:last])
    return y


def reference_forward(network: Llama, token_ids: Sequence[int]) -> Floats:
    """Logits [T, V] of one sequence from its start: slow, obvious, without cache or blocks."""
    config, weights = network.config, network.weights
    T, Dh, eps = len(token_ids), config.head_dim, config.rms_eps
    positions = np.arange(T)
    cos, sin = rope_table(T, Dh, config.rope_base, config.rope_factors)
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
    return Llama(config, Weights.from_named(config, linears, norms))
