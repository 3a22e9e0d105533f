"""Packing: what fits, what is left out and why, and that a passage stays data."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Index
from gateway.errors import Unavailable
from gateway.retrieval.augment import NOTHING_FOUND, block, pack, render, retrieve
from gateway.retrieval.embedder import HashedWords
from gateway.retrieval.found import Hit

anyio = pytest.mark.anyio
INDEX = Index(store="shelf", threshold=0.3, order="best_first")


def hit(text: str, relevance: float | None = 0.9, heading: str = "Title") -> Hit:
    return Hit(
        passage=1, file="file-1", filename="a.md", heading=heading, text=text, start=0, end=1,
        attributes={}, relevance=relevance,
    )  # fmt: skip


def words(texts: Any) -> list[int]:
    return [len(text.split()) for text in texts]


def test_whole_passages_the_best_first_as_many_as_fit() -> None:
    hits = [hit("one two three"), hit("x " * 50), hit("four")]
    given, dropped, tokens = pack(hits, INDEX, 25, words)
    assert [it.text for it in given] == ["one two three", "four"]
    assert [(it.hit, it.why) for it in dropped] == [(hits[1], "budget")]
    assert tokens == sum(words([block(1, it) for it in given])) <= 25


def test_what_is_not_relevant_is_left_out_and_said() -> None:
    hits = [hit("near", 0.31), hit("far", 0.29), hit("unknown", None)]
    given, dropped, _ = pack(hits, INDEX, 1000, words)
    assert [it.text for it in given] == ["near", "unknown"]
    assert [it.why for it in dropped] == ["threshold"]


def test_the_best_may_come_last() -> None:
    index = msgspec.structs.replace(INDEX, order="best_last")
    given, _, _ = pack([hit("best"), hit("second")], index, 1000, words)
    assert render(given).index("second") < render(given).index("best")
    assert "<passage 2>\nTitle\nbest\n" in render(given)


HOSTILE = st.text(alphabet="<>/| passage12\nim_endPASSAGE", max_size=60)


@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=4))
def test_a_passage_cannot_end_its_block(made: list[tuple[str, str]]) -> None:
    text = render([hit(it, heading=heading) for heading, it in made])
    opened = re.findall(r"<\s*passage", text, re.IGNORECASE)
    closed = re.findall(r"<\s*/\s*passage", text, re.IGNORECASE)
    assert len(opened) == len(closed) == len(made)
    assert "<|" not in text


@anyio
async def test_retrieve_fills_the_budget(shelf: Any, searcher: Any, texts: Any) -> None:
    kept = shelf.store()
    for name, text in vars(texts).items():
        await shelf.put(kept, name, text)
    index = Index(store="shelf", order="best_first")
    context = await retrieve("how long should green tea steep?", index, 1000, searcher, words)
    assert context.given[0].filename == "tea"
    assert context.text.startswith("<passage 1>\ntea\n")
    assert (context.mode, context.store, context.snapshot, context.policy) == (
        "hybrid", kept.id, 3, "",
    )  # fmt: skip
    small = await retrieve("how long should green tea steep?", index, 25, searcher, words)
    assert len(small.given) == 1
    assert "dropped-budget=2" in small.header


@anyio
@pytest.mark.parametrize(("policy", "text"), [("say", NOTHING_FOUND), ("refuse", "")])
async def test_nothing_relevant_is_the_releases_to_decide(
    policy: Any, text: str, shelf: Any, searcher: Any, texts: Any
) -> None:
    await shelf.put(shelf.store(), "fox", texts.fox)
    index = Index(store="shelf", threshold=0.99, on_nothing=policy)
    context = await retrieve("green tea", index, 1000, searcher, words)
    assert (context.given, context.policy, context.text) == ([], policy, text)
    assert [it.why for it in context.dropped] == ["threshold"]
    missing = await retrieve(
        "green tea", Index(store="none", on_nothing=policy), 9, searcher, words
    )
    assert (missing.mode, missing.policy, missing.text) == ("missing", policy, text)


@anyio
async def test_an_index_of_another_model_cannot_be_searched(
    shelf: Any, searcher: Any, texts: Any
) -> None:
    await shelf.put(shelf.store(), "fox", texts.fox)
    searcher.embedder = HashedWords(name="other@1")
    with pytest.raises(Unavailable, match="embedded by"):
        await retrieve("fox", Index(store="shelf"), 100, searcher, words)
