"""From files to passages: in the background for clients, and in one run for a folder or a corpus.

What is half done is seen by nobody and taken up again: a document waits in the store until it is
published. A run brings its documents as one snapshot, and leaves alone what did not change.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import sqlalchemy as sa

from gateway.config import Index
from gateway.errors import GatewayError, NotFound
from gateway.metrics import Metrics
from gateway.retrieval import documents as docs
from gateway.retrieval.arms import Arms, Vectors
from gateway.retrieval.documents import RUN, Document
from gateway.retrieval.embedder import Embedder, EmbedderSilent
from gateway.retrieval.files import File, content_of, find_file, put_file
from gateway.retrieval.index import Searcher, check_embedder
from gateway.retrieval.parsers import documents, parse, read
from gateway.retrieval.passages import Passage, Pieces, cut, digest
from gateway.retrieval.stores import VectorStore, create_store, named_store, new_store
from gateway.store.rows import now_ms
from gateway.store.tables import documents as table
from gateway.store.tables import vector_stores

log = logging.getLogger("glassgate.ingest")

CUTTING = b"1"  # changes with whatever makes other passages of the same bytes
TOGETHER = 64  # passages of several documents that are embedded at once
IDLE_S = 30.0  # between two looks for what others left behind
RETRY_S = 2.0


def file_hash(content: bytes) -> str:
    return hashlib.sha256(CUTTING + content).hexdigest()


class Ingester:
    """`run` is a task of the gateway's. Any number of gateways may do the same work: one counts."""

    def __init__(self, searcher: Searcher, metrics: Metrics) -> None:
        self._searcher = searcher
        self._metrics = metrics
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something was attached."""
        self._woken.set()

    async def run(self) -> None:
        store = self._searcher.store
        while True:
            self._woken.clear()
            wait = IDLE_S
            try:
                while await self._one():
                    pass
                await store.write(_sweep, self._searcher)
            except EmbedderSilent as error:
                log.info("ingestion waits for the embedder: %s", error)
                wait = RETRY_S
            except (*store.errors, GatewayError) as error:
                log.warning("ingestion stopped: %s", error)
                wait = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def bring(self, index: Index) -> None:
        """The index's corpus into its store, once; what is there already is left alone."""
        searcher = self._searcher
        while True:
            try:
                run = Run(searcher, index.tenant, index.corpus, lambda done, total: None)
                done = await run.ingest(index.store)
            except EmbedderSilent:
                await asyncio.sleep(RETRY_S)
            except (*searcher.store.errors, GatewayError) as error:
                log.warning("%s was not ingested: %s", index.corpus, error)
                return
            else:
                self._metrics.ingested.inc(done.passages)
                log.info("%s: %d passages are new in %s", index.corpus, done.passages, index.store)
                return

    async def _one(self) -> bool:
        """The oldest document that waits. False: none does."""
        store, arms = self._searcher.store, self._searcher.arms
        waiting = await store.read(docs.pending, 1)
        if not waiting:
            return False
        (document,) = waiting
        try:
            kept, file, raw = await store.read(_material, document)
            embedder = _embedder_for(kept, self._searcher.embedder)
            pieces = embedder.pieces if embedder else Pieces()
            found = await asyncio.to_thread(_read, file.filename, raw, pieces)
            vectors = await embedder.embed([it.indexed for it in found]) if embedder else None
            await store.write(_finish_and_publish, arms, document, found, vectors)
            self._metrics.ingested.inc(len(found))
        except GatewayError as error:
            await store.write(docs.fail, document, error.message)
        return True


class Summary(msgspec.Struct):
    store: str = ""
    snapshot: int = 0
    added: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    skipped: list[str] = []  # "source: why"


class Run:
    """One ingestion of a path into a named store, which it makes if there is none."""

    def __init__(
        self, searcher: Searcher, tenant: str, path: str, say: Callable[[int, int], None]
    ) -> None:
        self.summary = Summary()
        self._searcher = searcher
        self._tenant = tenant
        self._path = path
        self._say = say
        self._batch = RUN + digest(path)[:16]
        self._held: list[tuple[Document, list[Passage]]] = []

    async def ingest(self, name: str) -> Summary:
        """`say` hears (done, all) documents. Raises BadRequest, EmbedderSilent."""
        store, embedder = self._searcher.store, self._searcher.embedder
        kept = await store.write(_named, self._searcher, self._tenant, name)
        embedder = _embedder_for(kept, embedder)
        sources = await asyncio.to_thread(lambda: list(documents(self._path)))
        new: list[int] = []
        seen: set[str] = set()
        for at, (source, where) in enumerate(sources):
            raw = await asyncio.to_thread(read, where)
            document = await store.write(self._attach, kept, source, raw)
            seen.add(document.file)
            self.summary.unchanged += document.status == "completed"
            if document.status == "in_progress":
                new += await self._hold(document, source, raw, embedder)
            self._say(at + 1, len(sources))
        await self._write(embedder)
        gone = await store.read(_gone, kept.id, self._batch, seen)
        if new or gone:
            await store.write(docs.publish, kept.id, new, gone)
        self.summary.added, self.summary.removed = len(new), len(gone)
        self.summary.store = kept.id
        self.summary.snapshot = kept.snapshot + bool(new or gone)
        return self.summary

    def _attach(
        self, connection: sa.Connection, kept: VectorStore, source: str, raw: bytes
    ) -> Document:
        file = File(
            id="file-" + digest(f"{self._tenant}\0{kept.id}\0{source}")[:24],
            tenant=self._tenant,
            filename=source,
            purpose="assistants",
            hash=file_hash(raw),
            bytes=len(raw),
            created_at=now_ms(),
        )
        put_file(connection, file, raw)
        return docs.attach(connection, kept, file, self._batch, {})

    async def _hold(
        self, document: Document, source: str, raw: bytes, embedder: Embedder | None
    ) -> list[int]:
        """Cut it, and write what is held when that is enough. The id, unless it cannot be read."""
        if document.num_passages:
            return [document.id]  # a run before this one came so far
        pieces = embedder.pieces if embedder else Pieces()
        try:
            found = await asyncio.to_thread(_read, source, raw, pieces)
        except GatewayError as error:
            self.summary.skipped.append(error.message)
            await self._searcher.store.write(docs.fail, document, error.message)
            return []
        self._held.append((document, found))
        if sum(len(it) for _, it in self._held) >= TOGETHER:
            await self._write(embedder)
        return [document.id]

    async def _write(self, embedder: Embedder | None) -> None:
        held, self._held = self._held, []
        texts = [it.indexed for _, found in held for it in found]
        vectors = await embedder.embed(texts) if embedder else None
        self.summary.passages += len(texts)
        at = 0
        for document, found in held:
            mine = None if vectors is None else vectors[at : at + len(found)]
            at += len(found)
            await self._searcher.store.write(
                docs.finish, self._searcher.arms, document, found, mine
            )


def _read(source: str, raw: bytes, pieces: Pieces) -> list[Passage]:
    return cut(parse(source, raw), pieces)


def _embedder_for(kept: VectorStore, embedder: Embedder | None) -> Embedder | None:
    """None for a store of words alone. Raises EmbedderSilent, BadRequest on another model's."""
    if not kept.embedder:
        return None
    if embedder is None:
        raise EmbedderSilent(f"no embedder is configured, and {kept.name!r} has vectors")
    check_embedder(kept, embedder)
    return embedder


def _named(connection: sa.Connection, searcher: Searcher, tenant: str, name: str) -> VectorStore:
    searcher.arms.prepare(connection)
    embedder = searcher.embedder.name if searcher.embedder else ""
    return named_store(connection, tenant, name) or create_store(
        connection, new_store(tenant, name, embedder, {})
    )


def _material(connection: sa.Connection, document: Document) -> tuple[VectorStore, File, bytes]:
    query = sa.select(vector_stores).where(vector_stores.c.id == document.store)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("the vector store was deleted")
    kept = VectorStore(**row._mapping)
    file = find_file(connection, kept.tenant, document.file)
    return kept, file, content_of(connection, kept.tenant, document.file)


def _finish_and_publish(
    connection: sa.Connection,
    arms: Arms,
    document: Document,
    found: Sequence[Passage],
    vectors: Vectors | None,
) -> None:
    if docs.finish(connection, arms, document, found, vectors):
        docs.publish(connection, document.store, [document.id])


def _gone(connection: sa.Connection, store: str, batch: str, seen: set[str]) -> list[str]:
    """What this path once brought and has no more."""
    query = sa.select(table.c.file).filter_by(store=store, batch=batch, status="completed")
    return sorted(set(connection.scalars(query.where(table.c.removed.is_(None)))) - seen)


def _sweep(connection: sa.Connection, searcher: Searcher) -> None:
    docs.sweep(connection, searcher.arms)
