"""From the shares of a step to the arrays that the network computes.

Alphabet: T tokens, B sequences, R rows of logits.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequence_

import numpy as np
from numpy.typing import NDArray

from model.engine.scheduler import Share
from model.engine.sequence import Sequence
from model.network.batch import Batch, Int32s


def build_batch(shares: Sequence_[Share], block_size: int) -> tuple[Batch, list[int]]:
    """The batch, and per share how many of the R rows are its own (in the order of the shares)."""
    B = len(shares)
    token_ids: list[int] = []
    computed, counts, num_rows = [], [], []
    for sequence, count in shares:
        start = sequence.num_computed_tokens
        token_ids += sequence.token_ids[start : start + count] + sequence.draft
        computed.append(start)
        counts.append(count)
        num_rows.append(_num_rows(sequence, count))
    lengths = np.array(counts)
    ends = lengths.cumsum()
    T = int(ends[-1])
    owner = np.repeat(np.arange(B), lengths)
    positions = np.arange(T) + (np.array(computed) - ends + lengths)[owner]
    tables = np.zeros((B, max(len(s.block_table) for s, _ in shares)), np.int32)
    for table, (sequence, _) in zip(tables, shares, strict=True):
        table[: len(sequence.block_table)] = sequence.block_table
    slots = tables[owner, positions // block_size] * block_size + positions % block_size
    adapters = tuple(sequence.request.adapter for sequence, _ in shares)
    batch = Batch(
        token_ids=np.array(token_ids, np.int32),
        positions=positions.astype(np.int32),
        slots=slots.astype(np.int32),
        query_starts=np.concatenate(([0], ends)).astype(np.int32),
        context_lens=(np.array(computed) + lengths).astype(np.int32),
        block_tables=tables,
        logit_rows=_last(ends, np.array(num_rows)),
        adapters=adapters if any(adapters) else (),
    )
    return batch, num_rows


def _num_rows(sequence: Sequence, count: int) -> int:
    """All rows of a prompt that is scored, else those that decide on the next tokens."""
    if sequence.scores_prompt:
        return count
    return 1 + len(sequence.draft) if count == sequence.num_pending_tokens else 0


def _last(ends: NDArray[np.int_], counts: NDArray[np.int_]) -> Int32s:
    """The last counts[b] indices before each ends[b], as one int32 array [R]."""
    offsets = np.arange(counts.sum()) - np.repeat(counts.cumsum(), counts)
    return np.asarray(np.repeat(ends, counts) + offsets, np.int32)
