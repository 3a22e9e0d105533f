"""One step's work for the network: which tokens of which sequences, and where their KV lives.

There is no prefill and no decode: each sequence brings one or more consecutive tokens.
Alphabet: T tokens, B sequences, R rows of logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of one step, sequence after sequence."""

    token_ids: Int32s  # [T]
    positions: Int32s  # [T], place of the token in its sequence
    slots: Int32s  # [T], block_id * block_size + offset: where the token's K and V go
    query_starts: Int32s  # [B + 1], sequence b owns the tokens query_starts[b] : [b + 1]
    context_lens: Int32s  # [B], cached tokens including this step's
    block_tables: Int32s  # [B, blocks], block ids in order; what follows the context is ignored
    logit_rows: Int32s  # [R], the tokens whose logits are wanted
    adapters: tuple[str | None, ...] = ()  # one name per sequence; () = none at all

    @property
    def num_tokens(self) -> int:
        """T, the tokens computed by this step."""
        return len(self.token_ids)

    @property
    def num_sequences(self) -> int:
        """B, the sequences that take part."""
        return len(self.context_lens)


def single_sequence(token_ids: Sequence[int], block_size: int, start: int = 0) -> Batch:
    """The batch of one sequence that owns blocks 0, 1, …; every token's logits are wanted.

    `start` tokens are cached already, so token_ids stand at positions start, start + 1, …
    """
    end = start + len(token_ids)
    positions = np.arange(start, end, dtype=np.int32)
    return Batch(
        token_ids=np.asarray(token_ids, np.int32),
        positions=positions,
        slots=positions,
        query_starts=np.array([0, len(token_ids)], np.int32),
        context_lens=np.array([end], np.int32),
        block_tables=np.arange(-(-end // block_size), dtype=np.int32)[None],
        logit_rows=np.arange(len(token_ids), dtype=np.int32),
    )
