"""What is fixed for the life of one engine. Every default of the engine is written here."""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All counts are tokens unless they say otherwise."""

    context_length: int
    stop_ids: frozenset[int] = frozenset()  # tokens that end an answer, as the checkpoint says
    block_size: int = 16
    num_blocks: int = 512
    prefix_caching: bool = True
    max_num_seqs: int = 32  # sequences that hold blocks at the same time
    max_num_batched_tokens: int = 512  # of one step
    prefill_chunk: int = 128  # of one sequence in one step, unless it has the engine to itself
    max_num_queued_reqs: int = 1024
    max_num_queued_tokens: int = 1_000_000
    num_draft_tokens: int = 0  # guessed by prompt lookup and checked in one step; 0: no guessing
    samples: bool = True  # False: the runner chooses, so nothing may shape or explain the choice
    seed: int | None = None  # of requests that bring none

    def __post_init__(self) -> None:
        for name in ("context_length", "block_size", "num_blocks", "max_num_seqs",
                     "max_num_batched_tokens", "prefill_chunk", "max_num_queued_reqs"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def max_model_len(self) -> int:
        """The longest prompt with its answer: what both the network and the whole pool can hold."""
        return min(self.context_length, self.num_blocks * self.block_size)
