"""One search: by words and by meaning at once, fused, repeats out, reranked if told so.

When the embedder does not answer, words alone decide; the result says so, and the next search asks
the embedder again (its breaker bounds what that costs).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa

from gateway.config import Index
from gateway.errors import BadRequest, NotFound
from gateway.metrics import Metrics
from gateway.retrieval.arms import Arms, Scope, SqliteArms
from gateway.retrieval.embedder import Embedder, EmbedderSilent
from gateway.retrieval.filters import condition
from gateway.retrieval.found import Found, Hit, Mode
from gateway.retrieval.fusion import FUSIONS, Fusion, without_repeats
from gateway.retrieval.postgres_arms import PostgresArms
from gateway.retrieval.stores import TOUCH_MS, VectorStore, named_store, scope_of, touch
from gateway.store import Store
from gateway.store.rows import now_ms
from gateway.store.tables import documents, files, passages, vector_stores

DEPTH = 50  # passages that each arm brings
SPARE = 10  # passages that are read in case others are repeats


class How(msgspec.Struct, frozen=True, kw_only=True):
    """`filters` is OpenAI's; `depth` bounds what is fused, `top_k` what is given."""

    top_k: int = Index(store="").top_k
    fusion: Fusion = Index(store="").fusion
    filters: dict[str, Any] | None = None


class Reranker(Protocol):
    async def scores(self, question: str, texts: Sequence[str]) -> list[float] | None:
        """One for each text, more is better; None when there is no telling now."""


class Searcher:
    """What searches share. `embedder` is None where the config names none."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.store = store
        is_postgres = store.engine.dialect.name == "postgresql"
        self.arms: Arms = PostgresArms() if is_postgres else SqliteArms()
        self.embedder: Embedder | None = None
        self._metrics = metrics

    async def search(
        self,
        tenant: str,
        name: str,
        question: str,
        how: How,
        reranker: Reranker | None = None,
    ) -> Found:
        """`name` is a store's name or id, or name@N. Raises NotFound, BadRequest."""
        kept = await self.store.read(find, tenant, name)
        scope = scoped(kept, name, how, self.store.engine.dialect.name)
        words = asyncio.create_task(
            self.store.read(self.arms.by_words, scope, question, max(DEPTH, 2 * how.top_k))
        )
        try:
            meaning, mode = await self._by_meaning(kept, scope, question, how)
        finally:
            ranking = await words
        self._metrics.searches.labels(mode).inc()
        fused = FUSIONS[how.fusion]([ranking, meaning] if mode == "hybrid" else [ranking])
        wanted = how.top_k if reranker is None else 2 * how.top_k
        hits = await self.store.read(read_hits, scope, list(fused)[: 2 * wanted + SPARE])
        hits = _scored(hits, fused, meaning)
        places = without_repeats([it.text for it in hits], wanted)
        num_seen = len(hits) if len(places) < wanted else places[-1] + 1
        chosen = [hits[place] for place in places]
        if reranker is not None:
            chosen = await _reranked(chosen, question, reranker)
        if kept.expires_days is not None and now_ms() - kept.last_active_at > TOUCH_MS:
            await self.store.write(touch, kept)
        return Found(
            hits=chosen[: how.top_k],
            mode=mode,
            store=kept.id,
            snapshot=scope.snapshot,
            epoch=kept.epoch,
            num_repeats=num_seen - len(places),
        )

    async def nearness(self, texts: Sequence[str], ids: Sequence[int]) -> list[float | None]:
        """The cosine of each text and the passage beside it; None when there is no telling."""
        unknown: list[float | None] = [None] * len(texts)
        if self.embedder is None or not texts:
            return unknown
        try:
            vectors = await self.embedder.embed(texts, is_question=True)
            kept = await self.store.read(self.arms.vectors, ids)
        except (EmbedderSilent, *self.store.errors):
            return unknown
        pairs = zip(vectors, map(kept.get, ids), strict=True)
        return [float(row @ it) if it is not None and it.shape == row.shape else None
                for row, it in pairs]  # fmt: skip

    async def _by_meaning(
        self, kept: VectorStore, scope: Scope, question: str, how: How
    ) -> tuple[dict[int, float], Mode]:
        embedder = self.embedder
        if embedder is None or not kept.embedder:
            return {}, "words"
        check_embedder(kept, embedder)
        try:
            vector = (await embedder.embed([question], is_question=True))[0]
        except EmbedderSilent:
            return {}, "fallback"
        if kept.dimensions not in (0, len(vector)):
            return {}, "fallback"
        limit = max(DEPTH, 2 * how.top_k)
        return await self.store.read(self.arms.by_meaning, scope, vector, limit), "hybrid"


def check_embedder(kept: VectorStore, embedder: Embedder) -> None:
    """Raises BadRequest: vectors of two models mean nothing to each other."""
    if kept.embedder != embedder.name:
        raise BadRequest(
            f"vector store {kept.name!r} was embedded by {kept.embedder},"
            f" this gateway embeds by {embedder.name}",
            code="embedder_mismatch",
        )


def find(connection: sa.Connection, tenant: str, name: str) -> VectorStore:
    """By name, id, or either with @N. Raises NotFound."""
    kept = named_store(connection, tenant, name) or named_store(
        connection, tenant, name.rpartition("@")[0]
    )
    if kept is None:
        raise NotFound(f"there is no vector store {name!r}", param="vector_store_id")
    return kept


def scoped(kept: VectorStore, name: str, how: How, dialect: str) -> Scope:
    number = name.rpartition("@")[2]
    is_pinned = name not in (kept.id, kept.name) and number.isdecimal()
    where = None if how.filters is None else condition(how.filters, dialect)
    return scope_of(kept, int(number) if is_pinned else None, where)


def read_hits(connection: sa.Connection, scope: Scope, order: Sequence[int]) -> list[Hit]:
    """In this order; what the scope does not see is left out."""
    joined = passages.join(documents, documents.c.id == passages.c.document)
    joined = joined.join(vector_stores, vector_stores.c.id == documents.c.store)
    joined = joined.join(files, files.c.id == documents.c.file)
    query = (
        sa.select(
            passages.c.id.label("passage"),
            documents.c.file,
            files.c.filename,
            passages.c.heading,
            passages.c.text,
            passages.c.start,
            passages.c.end,
            documents.c.attributes,
        )
        .select_from(joined)
        .where(passages.c.id.in_(list(order)), scope.visible)
    )
    found = {row.passage: Hit(**row._mapping) for row in connection.execute(query)}
    return [found[it] for it in order if it in found]


def _scored(hits: list[Hit], fused: dict[int, float], meaning: dict[int, float]) -> list[Hit]:
    """With their places' scores; what only words found is as relevant as the least by meaning."""
    floor = min(meaning.values(), default=None)
    return [
        msgspec.structs.replace(
            hit, score=min(fused[hit.passage], 1.0), relevance=meaning.get(hit.passage, floor)
        )
        for hit in hits
    ]


async def _reranked(hits: list[Hit], question: str, reranker: Reranker) -> list[Hit]:
    scores = await reranker.scores(question, [it.indexed for it in hits])
    if scores is None:
        return hits
    places = sorted(range(len(hits)), key=lambda place: -scores[place])
    return [hits[place] for place in places]
