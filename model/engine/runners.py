"""What computes a batch: one method wide, so that a fake, a GPU's cost or a network fits behind it.

Alphabet: T tokens, B sequences, R rows of logits, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.engine.sequence import Sequence
from model.network.batch import Batch
from model.network.kv_storage import KVStorage
from model.network.llama import Llama


class Runner(Protocol):
    """`sequences` are the batch's, for runners that answer without computing."""

    def execute(
        self, batch: Batch, sequences: Sequence_[Sequence]
    ) -> NDArray[np.float32] | NDArray[np.int32]:
        """float32 logits [R, V] at batch.logit_rows, or int32 tokens [R], already chosen."""


class NetworkRunner:
    """The real one."""

    def __init__(self, network: Llama, kv: KVStorage) -> None:
        self._network = network
        self._kv = kv

    def execute(self, batch: Batch, sequences: Sequence_[Sequence]) -> NDArray[np.float32]:
        return self._network.forward(batch, self._kv)


class FakeRunner:
    """A network whose next token is a hash of its whole context, and whose cache holds the hashes.

    It reads the context only through block tables, so a wrong table, a block given away too early
    or a false prefix hit changes the answer, just as it would with a real network.
    """

    MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, vocab_size: int, num_blocks: int, block_size: int) -> None:
        self._vocab_size = vocab_size
        self._block_size = block_size
        self._sums = np.zeros(num_blocks * block_size, np.uint64)  # of the context up to each slot

    def execute(self, batch: Batch, sequences: Sequence_[Sequence]) -> NDArray[np.float32]:
        terms = self._terms(batch.token_ids, batch.positions)
        totals = terms.cumsum(dtype=np.uint64)
        starts = batch.query_starts[:-1]
        before = batch.positions[starts] - 1
        blocks = batch.block_tables[np.arange(len(starts)), before // self._block_size]
        cached = self._sums[blocks * self._block_size + before % self._block_size]
        base = np.where(before >= 0, cached, np.uint64(0)) - (totals[starts] - terms[starts])
        totals += np.repeat(base, np.diff(batch.query_starts))
        self._sums[batch.slots] = totals
        logits = np.zeros((len(batch.logit_rows), self._vocab_size), np.float32)
        logits[np.arange(len(logits)), self._next(totals[batch.logit_rows])] = 10
        return logits

    def expected(self, context: list[int]) -> int:
        """The token that follows `context`, computed without any cache."""
        ids = np.array(context, np.int32)
        return int(self._next(self._terms(ids, np.arange(len(ids))).sum(keepdims=True))[0])

    def _terms(
        self, token_ids: NDArray[np.integer], positions: NDArray[np.integer]
    ) -> NDArray[np.uint64]:
        weights = np.power(self.MULTIPLIER, positions.astype(np.uint64) + np.uint64(1))
        terms: NDArray[np.uint64] = (token_ids.astype(np.uint64) + np.uint64(1)) * weights
        return terms

    def _next(self, sums: NDArray[np.uint64]) -> NDArray[np.intp]:
        mixed = (sums ^ (sums >> np.uint64(29))) * self.MULTIPLIER >> np.uint64(33)
        return (mixed % np.uint64(self._vocab_size)).astype(np.intp)
