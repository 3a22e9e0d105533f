"""The store's fixtures, SQLite and PostgreSQL, and a searcher with a fake embedder on either."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.metrics import Metrics
from gateway.retrieval import documents as docs
from gateway.retrieval.embedder import HashedWords
from gateway.retrieval.files import File, new_id, put_file
from gateway.retrieval.index import Searcher
from gateway.retrieval.parsers import parse
from gateway.retrieval.passages import cut, digest
from gateway.retrieval.stores import VectorStore, create_store, new_store
from gateway.store import Store

_spec = importlib.util.spec_from_file_location(
    "store_conftest", Path(__file__).parents[1] / "store" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_there = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_there)
postgres, url, store = _there.postgres, _there.url, _there.store


@pytest.fixture
def searcher(store: Store) -> Searcher:
    it = Searcher(store, Metrics())
    it.embedder = HashedWords()
    with store.begin(write=True) as connection:
        it.arms.prepare(connection)
    return it


class Shelf:
    """Fills stores without waiting for anybody."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher

    def store(self, name: str = "shelf", tenant: str = "") -> VectorStore:
        with self.searcher.store.begin(write=True) as connection:
            made = new_store(tenant, name, self.searcher.embedder.name, {})
            return create_store(connection, made)

    async def put(
        self, kept: VectorStore, filename: str, text: str, file_id: str = "", **attributes: Any
    ) -> str:
        """The file's id, once its text can be found."""
        raw = text.encode()
        file = File(
            id=file_id or new_id("file-"), tenant=kept.tenant, filename=filename,
            purpose="assistants", hash=digest(text), bytes=len(raw), created_at=1,
        )  # fmt: skip
        embedder = self.searcher.embedder
        found = cut(parse(filename, raw), embedder.pieces)
        vectors = await embedder.embed([it.indexed for it in found])

        def write(connection: sa.Connection) -> None:
            put_file(connection, file, raw)
            document = docs.attach(connection, kept, file, "", attributes)
            assert docs.finish(connection, self.searcher.arms, document, found, vectors)
            docs.publish(connection, kept.id, [document.id])

        await self.searcher.store.write(write)
        return file.id


@pytest.fixture
def shelf(searcher: Searcher) -> Shelf:
    return Shelf(searcher)


@pytest.fixture
def texts() -> SimpleNamespace:
    return SimpleNamespace(
        fox="The quick brown fox jumps over the lazy dog near the river bank.",
        tea="Green tea should steep for two minutes in water that does not boil.",
        moon="The moon moves away from the earth by four centimetres every year.",
    )
