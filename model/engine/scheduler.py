"""Who computes how many tokens in the next step, and who holds which blocks.

There are no phases (as in vLLM v1): a step has a budget of tokens, first for those who run, in the
order of their arrival, then for those who wait, and each token given lets `num_computed_tokens`
catch up. A long prompt takes several steps, a cached prefix starts further on, and who lost its
blocks begins again: it is all the same rule. Only so much of fairness: a prompt leaves a token for
every stream and an equal share for every other prompt.

The first in line can always go on, because those behind it give up their blocks and no sequence may
outgrow the pool; so everything ends.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from model.engine.config import EngineConfig
from model.engine.errors import QueueFull
from model.engine.kv_cache import BlockPool, extend_hashes
from model.engine.sequence import Sequence

SCORED_CHUNK = 64  # prompt positions whose logits are kept in one step: a row is vocabulary-wide


class Share(NamedTuple):
    """One sequence's part of a step."""

    sequence: Sequence
    num_tokens: int


class Scheduler:
    """Moves sequences between waiting and running; the only one to touch their blocks."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self.pool = BlockPool(config.num_blocks, config.block_size)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_queued_tokens = 0
        self.num_preemptions = 0
        self.prefix_queries = 0  # tokens looked up in the cache, and found there
        self.prefix_hits = 0

    def check_queue(self, num_tokens: int) -> None:
        """Raise QueueFull if a prompt of `num_tokens` finds no place; an empty queue has one."""
        config = self._config
        if len(self.waiting) >= config.max_num_queued_reqs:
            raise QueueFull(f"{len(self.waiting)} requests are waiting already", "requests")
        tokens = self.num_queued_tokens
        if tokens and tokens + num_tokens > config.max_num_queued_tokens:
            raise QueueFull(f"{tokens} tokens are waiting already", "tokens")

    def add(self, sequence: Sequence) -> None:
        """Queue at the end."""
        self.waiting.append(sequence)
        self.num_queued_tokens += sequence.num_tokens

    def add_ahead(self, sequences: list[Sequence]) -> None:
        """Queue before all others, in this order."""
        self.waiting.extendleft(reversed(sequences))
        self.num_queued_tokens += sum(sequence.num_tokens for sequence in sequences)

    def schedule(self, now: float) -> list[Share]:
        """The next step, begun now. Blocks for all its tokens are held when this returns."""
        shares: list[Share] = []
        budget, most = self._config.max_num_batched_tokens, self._most_of_one()
        preempted = self.num_preemptions
        while len(shares) < len(self.running) and budget > 0:
            sequence = self.running[len(shares)]
            count = self._chunk(sequence, min(budget, most))
            if self._make_room(sequence, count):
                shares.append(Share(sequence, count))
                budget -= count
        while budget > 0 and preempted == self.num_preemptions and self._admit_next(now):
            sequence = self.running[-1]
            shares.append(Share(sequence, self._chunk(sequence, min(budget, most))))
            budget -= shares[-1].num_tokens
        return shares

    def advance(self, sequence: Sequence, num_computed: int) -> None:
        """Note that the first `num_computed` tokens are in the cache; make full blocks findable."""
        sequence.num_computed_tokens = num_computed
        full = num_computed // self._config.block_size
        if not self._config.prefix_caching or full <= sequence.num_shared_blocks:
            return
        extend_hashes(sequence.block_hashes, sequence.token_ids, self._config.block_size)
        for i in range(sequence.num_shared_blocks, full):
            self.pool.register(sequence.block_table[i], sequence.block_hashes[i + 1])
        sequence.num_shared_blocks = full

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is, and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            self.num_queued_tokens -= sequence.num_tokens
        self._release(sequence)

    def _most_of_one(self) -> int:
        """Tokens that one sequence may have in this step."""
        budget = self._config.max_num_batched_tokens
        if len(self.running) + len(self.waiting) == 1:
            return budget
        prompts = sum(s.num_computed_tokens < s.num_tokens - 1 for s in self.running)
        streams = len(self.running) - prompts
        share = (budget - streams) // (prompts + bool(self.waiting) or 1)
        return max(1, min(share, self._config.prefill_chunk))

    def _chunk(self, sequence: Sequence, limit: int) -> int:
        if sequence.scores_prompt:
            limit = min(limit, SCORED_CHUNK)
        if sequence.draft:
            self._trim_draft(sequence, limit)
        return min(sequence.num_pending_tokens, limit)

    def _trim_draft(self, sequence: Sequence, limit: int) -> None:
        """Guess no more than the step has room for; nobody gives up blocks for a guess."""
        if self._missing(sequence, sequence.num_pending_tokens) > self.pool.num_free:
            sequence.draft = []
        excess = max(sequence.num_pending_tokens - limit, 0)
        sequence.draft = sequence.draft[: len(sequence.draft) - excess]

    def _make_room(self, sequence: Sequence, count: int) -> bool:
        """Give a running sequence blocks for `count` more tokens; False if it lost its own."""
        missing = self._missing(sequence, count)
        while missing > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            if victim is sequence:
                return False
        if missing > 0:
            sequence.block_table.extend(self.pool.allocate(missing))
        return True

    def _missing(self, sequence: Sequence, count: int) -> int:
        """How many blocks it lacks for `count` more tokens; below 0 where some are to spare."""
        return self._num_blocks(sequence.num_computed_tokens + count) - len(sequence.block_table)

    def _preempt(self, victim: Sequence) -> None:
        self._release(victim)
        victim.draft = []
        self.add_ahead([victim])
        self.num_preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pool.free(sequence.block_table)
        del sequence.block_table[:]
        sequence.num_computed_tokens = sequence.num_shared_blocks = 0

    def _admit_next(self, now: float) -> bool:
        """Let the first in the queue run, if blocks for everything it knows so far are there."""
        if not self.waiting or len(self.running) >= self._config.max_num_seqs:
            return False
        sequence = self.waiting[0]
        found = self._find_prefix(sequence)
        missing = self._num_blocks(sequence.num_tokens) - len(found)
        if missing + self.pool.num_unheld(found) > self.pool.num_free:
            return False
        self.pool.share(found)
        sequence.block_table.extend(found)
        sequence.block_table.extend(self.pool.allocate(missing))
        sequence.num_shared_blocks = len(found)
        sequence.num_computed_tokens = len(found) * self._config.block_size
        if sequence.admitted is None:
            sequence.admitted = now
            self._count_prefix(sequence)
        self.running.append(self.waiting.popleft())
        self.num_queued_tokens -= sequence.num_tokens
        return True

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """Known blocks of its tokens. Never all: the last token must be computed for its logits."""
        if not self._reads_cache(sequence):
            return []
        extend_hashes(sequence.block_hashes, sequence.token_ids, self._config.block_size)
        most = (sequence.num_tokens - 1) // self._config.block_size
        return self.pool.find(sequence.block_hashes[1 : most + 1])

    def _reads_cache(self, sequence: Sequence) -> bool:
        """Logits of prompt positions are to be had only by computing them."""
        return self._config.prefix_caching and not sequence.scores_prompt

    def _count_prefix(self, sequence: Sequence) -> None:
        if self._reads_cache(sequence):
            sequence.num_cached_tokens = sequence.num_computed_tokens
            self.prefix_queries += sequence.num_tokens
            self.prefix_hits += sequence.num_computed_tokens

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._config.block_size)
