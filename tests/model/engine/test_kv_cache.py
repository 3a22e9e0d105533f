from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.engine.kv_cache import BlockPool, extend_hashes, root_hash


class Pools(RuleBasedStateMachine):
    """Random holders against a model: which holder has which blocks, which prefix is known."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(num_blocks=8, block_size=2)
        self.held: list[list[int]] = []
        self.known: dict[bytes, int] = {}

    @rule(count=st.integers(0, 8))
    def allocate(self, count: int) -> None:
        if count > self.pool.num_free:
            with pytest.raises(ValueError, match="free"):
                self.pool.allocate(count)
            return
        blocks = self.pool.allocate(count)
        taken = {block for holder in self.held for block in holder}
        assert len(set(blocks)) == count
        assert taken.isdisjoint(blocks)
        self.held.append(blocks)
        self.known = {link: block for link, block in self.known.items() if block not in blocks}

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), link=st.binary(min_size=1, max_size=1))
    def register(self, data: st.DataObject, link: bytes) -> None:
        block = data.draw(st.sampled_from([b for holder in self.held for b in holder]))
        self.pool.register(block, link)
        if link not in self.known:
            self.known = {old: b for old, b in self.known.items() if b != block} | {link: block}

    @rule(links=st.lists(st.binary(min_size=1, max_size=1), max_size=4))
    def share(self, links: list[bytes]) -> None:
        found = self.pool.find(links)
        assert found == [self.known[link] for link in links[: len(found)]]
        assert len(found) == len(links) or links[len(found)] not in self.known
        self.pool.share(found)
        self.held.append(found)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        self.pool.free(self.held.pop(place))

    @rule()
    def forget(self) -> None:
        self.pool.forget_all()
        self.known = {}

    @invariant()
    def counts_are_exact(self) -> None:
        holders = Counter(block for holder in self.held for block in holder)
        assert self.pool.num_free == 8 - len(holders)
        assert self.pool.usage == pytest.approx(len(holders) / 8)
        assert self.pool.num_unheld(range(8)) == self.pool.num_free

    def teardown(self) -> None:
        for holder in self.held:
            self.pool.free(holder)
        assert self.pool.num_free == 8
        assert sorted(self.pool.allocate(8)) == list(range(8))


TestPools = Pools.TestCase


def test_a_block_is_freed_once() -> None:
    pool = BlockPool(2, 4)
    blocks = pool.allocate(1)
    pool.free(blocks)
    with pytest.raises(ValueError, match="free already"):
        pool.free(blocks)


def test_the_prefix_used_longest_ago_is_forgotten_first_and_from_its_end() -> None:
    pool = BlockPool(4, 1)
    old, new = pool.allocate(2), pool.allocate(2)
    for block, link in zip(old + new, (b"a", b"ab", b"x", b"xy"), strict=True):
        pool.register(block, link)
    pool.free(old)
    pool.free(new)
    pool.free(pool.allocate(1))
    assert pool.find([b"a", b"ab"]) == old[:1]
    assert pool.find([b"x", b"xy"]) == new


def test_unknown_blocks_are_reused_before_known_ones_and_before_fresh_ones() -> None:
    pool = BlockPool(4, 1)
    known, unknown = pool.allocate(1), pool.allocate(1)
    pool.register(known[0], b"a")
    pool.free(known)
    pool.free(unknown)
    assert pool.allocate(1) == unknown
    assert pool.find([b"a"]) == known


def test_hashes_cover_full_blocks_and_everything_before_them() -> None:
    def hashes(token_ids: list[int], adapter: str | None = None, salt: str = "") -> list[bytes]:
        links = [root_hash(adapter, salt)]
        extend_hashes(links, token_ids, 2)
        return links[1:]

    assert len(hashes([1, 2, 3])) == 1
    assert hashes([1, 2, 3, 4])[0] == hashes([1, 2])[0]
    assert hashes([1, 2, 3, 4])[1] != hashes([2, 1, 3, 4])[1]
    assert len({hashes([1, 2])[0], hashes([1, 2], "a")[0], hashes([1, 2], None, "a")[0]}) == 3
    grown = [root_hash(None, "")]
    for end in range(6):
        extend_hashes(grown, [1, 2, 3, 4, 5][:end], 2)
    assert grown[1:] == hashes([1, 2, 3, 4, 5])
