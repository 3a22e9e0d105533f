"""Python's side of the compiled step: addresses of weights, buffers, a batch as kernels see it.

Alphabet: T tokens, B sequences, R rows of logits, H heads, K key-value heads, Dh head width.
"""

from __future__ import annotations

import logging
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from model.network import compiler, kernels
from model.network.batch import Batch, Int32s
from model.network.config import NetworkConfig
from model.network.crew import Crew
from model.network.kernel_parts import (
    KIND,
    NUM_FIELDS,
    NUM_PANELS,
    SPAN,
    Cache,
    Model,
    Step,
    Work,
)  # fmt: skip
from model.network.kernels import PANELS_AT_ONCE
from model.network.kv_storage import KVStorage
from model.network.linear import Floats, Linear
from model.network.llama_weights import PROJECTIONS, Weights
from model.network.lora import Adapter, Segment
from model.network.microkernel import (
    BLOCKS,
    COLUMNS,
    MIXED_COLUMNS,
    compile_mixture,
    compile_product,
)
from model.network.panels import BLOCK, LANES, Kind, PackedLinear, aligned

logger = logging.getLogger(__name__)

TILE_COLUMNS = 12  # tokens of a tile · heads of a group: 8 and 4 columns go through a product best


def round_up(count: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `count`."""
    return -(-count // unit) * unit


def power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def record(weight: Linear) -> list[int]:
    """A weight as the kernels see it: the fields `kernels.KIND` and following."""
    if not isinstance(weight, PackedLinear):
        raise TypeError(f"the kernels need packed weights, not {type(weight).__name__}")
    num_blocks = weight.words.shape[1] * BLOCK // BLOCKS[weight.kind].num_inputs
    return [
        weight.kind, len(weight.words), num_blocks,
        weight.words.ctypes.data, weight.constants.ctypes.data,
        weight.words[0].nbytes, weight.constants[0].nbytes,
    ]  # fmt: skip


def product_table(kinds: set[int]) -> NDArray[np.int64]:
    """The addresses of the products of some kinds, by kind and number of columns."""
    table = np.zeros((len(BLOCKS), max(COLUMNS) + 1), np.int64)
    for kind in kinds | {Kind.F32}:  # keys and adapters are of the last
        for columns in COLUMNS:
            table[kind, columns] = compile_product(kind, columns)
    return table


def mixture_table(width: int) -> NDArray[np.int64]:
    """The addresses of the mixtures of values, by number of columns."""
    return np.array([0, *(compile_mixture(columns, width) for columns in MIXED_COLUMNS)], np.int64)


class CompiledLlama:
    """Runs a llama whose weights are all packed; one batch at a time, in buffers that it keeps."""

    def __init__(self, config: NetworkConfig, weights: Weights, cos: Floats, sin: Floats) -> None:
        self._config = config
        self._weights = weights  # keeps the arrays behind the addresses alive
        self._group = config.group_size
        self._tile = max(1, TILE_COLUMNS // self._group)
        linears = [[record(linear) for linear in layer.projections()] for layer in weights.layers]
        head = record(weights.lm_head)
        self._model = Model(
            product_table({weight[KIND] for layer in linears for weight in layer} | {head[0]}),
            mixture_table(round_up(config.head_dim, LANES)),
            np.array(linears, np.int64),
            np.array([(layer.input_norm, layer.post_norm) for layer in weights.layers], np.float32),
            np.array(weights.norm, np.float32),
            np.array(head, np.int64),
            cos,
            sin,
            np.array([config.num_heads, config.num_kv_heads, config.head_dim], np.int64),
            np.float32(config.rms_eps),
        )
        if not compiler.is_kept("kernels.run"):
            logger.info("compiling the network's kernels, once on this machine: half a minute")
        self._crew = Crew(compiler.num_threads())
        self._adapters: WeakKeyDictionary[Adapter, NDArray[np.int64]] = WeakKeyDictionary()
        self._buffers: dict[str, Floats] = {}

    def forward(self, batch: Batch, kv: KVStorage, segments: list[Segment]) -> Floats:
        """Logits [R, V], as `Llama.forward`."""
        step = self._step(batch, kv, segments)
        work = self._work(batch.num_tokens, step, segments)
        embedded = self._weights.embed_tokens.rows(batch.token_ids)
        work.x[:, : self._config.hidden_size] = embedded
        cache = Cache(kv.keys, kv.values)
        self._crew.run(partial(kernels.run, self._model, step, cache, work))
        logits: Floats = work.logits[:, : self._config.vocab_size]
        return logits

    def _step(self, batch: Batch, kv: KVStorage, segments: list[Segment]) -> Step:
        tiles = self._tiles(batch)
        longest = int(batch.context_lens.max())
        spans = -(-longest // (SPAN * kv.kept))
        few = len(tiles) * self._model.sizes[1] < 4 * self._crew.size
        panels, lanes = kv.places(batch.slots)
        return Step(
            np.array(batch.positions, np.int32),
            np.array(panels, np.int32),
            np.array(lanes, np.int32),
            kv.panel_tables(batch.block_tables),
            kv.kept,
            tiles,
            spans if few else 1,
            np.array(batch.logit_rows, np.int32),
            np.array([(s[0], s[1], i) for i, s in enumerate(segments)], np.int32).reshape(-1, 3),
            np.array([self._records(s[2]) for s in segments], np.int64).reshape(
                -1, *self._model.linears.shape[:2], 2, NUM_FIELDS
            ),
        )

    def _records(self, adapter: Adapter) -> NDArray[np.int64]:
        """The records [L, 7, 2, 7] of an adapter's factors, kept as long as the adapter lives."""
        records = self._adapters.get(adapter)
        if records is None:
            records = np.zeros((*self._model.linears.shape[:2], 2, NUM_FIELDS), np.int64)
            for (layer, name), change in adapter.changes.items():
                factors = record(change.down), record(change.up)
                records[layer, PROJECTIONS.index(name)] = factors
            self._adapters[adapter] = records
        return records

    def _tiles(self, batch: Batch) -> Int32s:
        """Each sequence's tokens in runs of a few: first token, number, sequence."""
        starts = batch.query_starts.tolist()
        return np.array(
            [
                (first, min(self._tile, starts[b + 1] - first), b)
                for b in range(batch.num_sequences)
                for first in range(starts[b], starts[b + 1], self._tile)
            ],
            np.int32,
        )

    def _work(self, T: int, step: Step, segments: list[Segment]) -> Work:
        threads = self._crew.size
        rank = max((segment[2].rank for segment in segments), default=0)
        H, K, Dh = self._model.sizes.tolist()
        qkv = sum(int(self._model.linears[0, which, NUM_PANELS]) for which in range(3))
        columns = self._tile * self._group
        width = round_up(Dh, LANES)
        return Work(
            x=self._buffer("x", T, round_up(self._config.hidden_size, LANES)),
            normed=self._buffer(
                "normed", threads, power_of_two(T), self._with_sums(self._config.hidden_size)
            ),
            qkv=self._buffer("qkv", T, qkv * LANES),
            mixed=self._buffer("mixed", T, self._with_sums(H * Dh)),
            inner=self._buffer("inner", T, self._with_sums(self._config.intermediate_size)),
            gates=self._buffer("gates", threads, 2, power_of_two(T), PANELS_AT_ONCE * LANES),
            low_rank=self._buffer("low_rank", threads, 2, power_of_two(T), round_up(rank, BLOCK)),
            queries=self._buffer("queries", threads, columns, width),
            scores=self._buffer("scores", threads, columns, SPAN * LANES),
            places=np.empty((threads, SPAN), np.int64),
            sums=self._buffer("sums", threads, columns, width + 2),
            states=self._buffer("states", len(step.tiles) * K * step.splits, columns, width + 2),
            logits=np.empty(
                (len(step.logit_rows), round_up(self._config.vocab_size, LANES)), np.float32
            ),
        )

    @staticmethod
    def _with_sums(features: int) -> int:
        """The width of a row that ends with the sums of its blocks."""
        width = round_up(features, BLOCK)
        return width + width // BLOCK

    def _buffer(self, name: str, *shape: int) -> NDArray[np.float32]:
        """Kept memory of at least this length; zero at first, so what is never written stays so."""
        kept = self._buffers.get(name)
        if kept is None or any(have < want for have, want in zip(kept.shape, shape, strict=True)):
            length = power_of_two(shape[0])
            kept = self._buffers[name] = aligned((length, *shape[1:]), np.float32)
        return kept[: shape[0]]
