"""Runs over a folder, and the background work: incremental, resumed, and never seen half done."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Index
from gateway.errors import GatewayError
from gateway.metrics import Metrics
from gateway.retrieval.embedder import EmbedderSilent, HashedWords
from gateway.retrieval.index import How, Searcher
from gateway.retrieval.ingest import Ingester, Run, Summary

pytestmark = pytest.mark.anyio


async def ingest(searcher: Searcher, path: Path | str, name: str = "notes") -> Summary:
    return await Run(searcher, "", str(path), lambda done, total: None).ingest(name)


async def texts(searcher: Searcher, name: str = "notes") -> set[str]:
    found = await searcher.search("", name, "alpha beta gamma", How(top_k=50))
    return {hit.text for hit in found.hits}


async def test_only_what_changed_is_ingested_again(searcher: Any, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("alpha one")
    (tmp_path / "b.md").write_text("beta one")
    first = await ingest(searcher, tmp_path)
    assert (first.added, first.unchanged, first.removed, first.snapshot) == (2, 0, 0, 1)
    again = await ingest(searcher, tmp_path)
    assert (again.added, again.unchanged, again.removed, again.snapshot) == (0, 2, 0, 1)
    (tmp_path / "a.md").write_text("alpha two")
    (tmp_path / "b.md").unlink()
    (tmp_path / "c.md").write_text("gamma one")
    third = await ingest(searcher, tmp_path)
    assert (third.added, third.unchanged, third.removed, third.snapshot) == (2, 0, 1, 2)
    assert await texts(searcher) == {"alpha two", "gamma one"}
    assert await texts(searcher, "notes@1") == {"alpha one", "beta one"}


async def test_what_cannot_be_read_is_skipped_and_said(searcher: Any, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("alpha")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    done = await ingest(searcher, tmp_path)
    assert (done.added, len(done.skipped)) == (1, 1)
    assert "b.txt" in done.skipped[0]
    with pytest.raises(GatewayError, match="there is no"):
        await ingest(searcher, tmp_path / "none")


async def test_a_run_that_broke_off_is_seen_by_nobody_and_taken_up(
    searcher: Any, tmp_path: Path
) -> None:
    for n in range(3):
        (tmp_path / f"{n}.md").write_text(
            "\n\n".join(f"alpha {n} {i} {'x ' * 150}" for i in range(70))
        )
    embedder = searcher.embedder
    asked: list[int] = []

    class Breaks(HashedWords):
        async def embed(self, texts: Any, *, is_question: bool = False) -> Any:
            asked.append(len(texts))
            if len(asked) == 2:
                raise EmbedderSilent("now")
            return await embedder.embed(texts)

    searcher.embedder = Breaks()
    with pytest.raises(EmbedderSilent):
        await ingest(searcher, tmp_path)
    searcher.embedder = embedder
    assert await texts(searcher) == set()
    done = await ingest(searcher, tmp_path)
    assert (done.added, done.snapshot) == (3, 1)
    assert 0 < done.passages < 210  # the first document was not embedded again


async def test_the_background_waits_for_the_embedder(searcher: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.retrieval.ingest.RETRY_S", 0.01)
    monkeypatch.setattr("gateway.retrieval.ingest.documents", lambda path: [("a.md", "assert")])
    searcher.embedder.is_silent = True
    ingester = Ingester(searcher, Metrics())
    bringing = asyncio.create_task(ingester.bring(Index(store="docs", corpus="made-up")))
    await asyncio.sleep(0.05)
    assert not bringing.done()
    searcher.embedder.is_silent = False
    async with asyncio.timeout(10):
        await bringing
    assert await texts(searcher, "docs")
