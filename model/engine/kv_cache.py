"""Blocks of the KV cache: who holds which, and which hold a prefix worth finding again.

Knows block numbers, hashes and reference counts. Leaves out the keys and values themselves, which
the network writes, and the policy, which is the scheduler's.

A full block is known by a hash over its tokens and the hash of the block before it, so equal hashes
mean equal contexts (PagedAttention, arXiv 2309.06180; automatic prefix caching in vLLM). The first
link is made of the adapter and the salt, so tenants with different salts share nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def root_hash(adapter: str | None, cache_salt: str) -> bytes:
    """The link before the first block."""
    return hashlib.sha256(repr((adapter, cache_salt)).encode()).digest()


def extend_hashes(hashes: list[bytes], token_ids: Sequence[int], block_size: int) -> None:
    """Append the hash of every full block of `token_ids` that `hashes` (root first) lacks."""
    for start in range((len(hashes) - 1) * block_size, len(token_ids), block_size):
        block = token_ids[start : start + block_size]
        if len(block) == block_size:
            link = hashes[-1] + np.array(block, np.int32).tobytes()
            hashes.append(hashlib.sha256(link).digest())


class BlockPool:
    """A fixed number of blocks, each free (count 0) or held by `count` sequences.

    Free blocks form a doubly linked list through two arrays: from its head blocks are taken, to its
    tail go those that still hold a known prefix. So what was used longest ago is forgotten first,
    a block found by its hash leaves the middle at no cost, and nothing is ever searched.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_free = num_blocks
        self._end = num_blocks  # the list's sentinel: before its head and after its tail
        self._next = [*range(1, num_blocks + 1), 0]
        self._previous = [num_blocks, *range(num_blocks)]
        self._counts = [0] * num_blocks
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}

    @property
    def usage(self) -> float:
        """The share of blocks that sequences hold."""
        return 1 - self.num_free / self.num_blocks

    def find(self, hashes: Iterable[bytes]) -> list[int]:
        """The blocks of the longest known prefix; only `share` keeps them from being reused."""
        found = []
        for link in hashes:
            block = self._block_of.get(link)
            if block is None:
                break
            found.append(block)
        return found

    def num_unheld(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` would leave the free list if they were shared."""
        return sum(self._counts[block] == 0 for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Hold blocks that `find` returned."""
        for block in blocks:
            if self._counts[block] == 0:
                self._unlink(block)
            self._counts[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Hold `count` blocks of undefined content; the caller has looked at `num_free`."""
        if count > self.num_free:
            raise ValueError(f"{count} blocks wanted, {self.num_free} free")
        blocks = []
        for _ in range(count):
            block = self._next[self._end]
            self._unlink(block)
            self._counts[block] = 1
            self._forget(block)
            blocks.append(block)
        return blocks

    def free(self, blocks: Sequence[int]) -> None:
        """Let go of blocks; of those nobody holds, the last are forgotten first."""
        for block in reversed(blocks):
            if self._counts[block] <= 0:
                raise ValueError(f"block {block} is free already")
            self._counts[block] -= 1
            if self._counts[block] == 0:
                # what nobody can find is reused at once: known prefixes and cold memory rest
                is_known = self._hash_of[block] is not None
                self._link(block, before=self._end if is_known else self._next[self._end])

    def register(self, block: int, link: bytes) -> None:
        """Make a held, full block findable; the first block under a hash keeps it."""
        if link not in self._block_of:
            self._forget(block)
            self._block_of[link] = block
            self._hash_of[block] = link

    def forget_all(self) -> None:
        """Make every prefix unknown, for example because the weights changed."""
        self._block_of.clear()
        self._hash_of = [None] * self.num_blocks

    def _forget(self, block: int) -> None:
        link = self._hash_of[block]
        if link is not None:
            del self._block_of[link]
            self._hash_of[block] = None

    def _link(self, block: int, before: int) -> None:
        after = self._previous[before]
        self._next[after] = self._previous[before] = block
        self._previous[block], self._next[block] = after, before
        self.num_free += 1

    def _unlink(self, block: int) -> None:
        before, after = self._previous[block], self._next[block]
        self._next[before], self._previous[after] = after, before
        self.num_free -= 1
