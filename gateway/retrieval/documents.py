"""Documents: versions of files in vector stores, and the passages that they were cut into.

A document is attached, finished unseen, and then published, several at once, as the store's next
snapshot. Deleting takes it out of every snapshot.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from gateway.errors import BadRequest, NotFound
from gateway.retrieval.arms import Arms, Vectors, word_of
from gateway.retrieval.files import File, Page, find_file, paged
from gateway.retrieval.passages import Passage, digest
from gateway.retrieval.stores import TOPIC, VectorStore, find_store
from gateway.store.changes import note
from gateway.store.rows import DAY_MS, now_ms
from gateway.store.tables import documents, files, passages, vector_stores

RUN = "run_"  # begins the batch of what `ingest.run` brings and publishes itself


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """`batch` names the file batch that it came with. `added` is None until it is published."""

    id: int
    store: str
    file: str
    hash: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    error: str
    batch: str
    attributes: dict[str, Any]
    created_at: int
    bytes: int
    num_passages: int
    added: int | None
    removed: int | None


def attach(
    connection: sa.Connection,
    store: VectorStore,
    file: File,
    batch: str,
    attributes: dict[str, Any],
) -> Document:
    """The file's newest version in the store; a new one, in progress, where its text is new."""
    connection.execute(
        documents.delete().where(
            documents.c.store == store.id,
            documents.c.file == file.id,
            documents.c.status.in_(["failed", "cancelled"]),
        )
    )
    newest = _newest(connection, store.id, file.id)
    if newest and newest.hash == file.hash and not newest.removed:
        changes = {"attributes": attributes or newest.attributes, "batch": batch or newest.batch}
        change = documents.update().where(documents.c.id == newest.id)
        connection.execute(change.values(changes))
        return msgspec.structs.replace(newest, **changes)
    row: dict[str, Any] = {
        "store": store.id,
        "file": file.id,
        "hash": file.hash,
        "status": "in_progress",
        "error": "",
        "batch": batch,
        "attributes": attributes,
        "created_at": now_ms(),
        "bytes": 0,
        "num_passages": 0,
    }
    key = connection.scalar(documents.insert().values(row).returning(documents.c.id))
    return Document(id=key or 0, added=None, removed=None, **row)


def find_document(connection: sa.Connection, tenant: str, store_id: str, file_id: str) -> Document:
    """The newest version of the file in the store. Raises NotFound."""
    find_store(connection, tenant, store_id)
    found = _newest(connection, store_id, file_id)
    if found is None or found.removed:
        raise NotFound(f"there is no file {file_id!r} in this vector store", param="file_id")
    return found


def list_documents(
    connection: sa.Connection, tenant: str, store_id: str, page: Page, status: str = "",
    batch: str = "",
) -> list[Document]:  # fmt: skip
    find_store(connection, tenant, store_id)
    query = sa.select(documents).where(documents.c.store == store_id, documents.c.removed.is_(None))
    if status:
        query = query.where(documents.c.status == status)
    if batch:
        query = query.where(documents.c.batch == batch)
    seen = {
        name: _newest(connection, store_id, getattr(page, name)) for name in ("after", "before")
    }
    ids = {name: str(it.id) if it else "" for name, it in seen.items()}
    found = connection.execute(paged(query, documents.c.id, msgspec.structs.replace(page, **ids)))
    return [Document(**row._mapping) for row in found]


def count_documents(
    connection: sa.Connection, store_ids: Sequence[str], batch: str = ""
) -> dict[str, dict[str, tuple[int, int]]]:
    """Store → status → (documents, bytes), of what is not replaced."""
    query = (
        sa.select(documents.c.store, documents.c.status, sa.func.count(),
                  sa.func.coalesce(sa.func.sum(documents.c.bytes), 0))
        .where(documents.c.store.in_(store_ids), documents.c.removed.is_(None))
        .group_by(documents.c.store, documents.c.status)
    )  # fmt: skip
    if batch:
        query = query.where(documents.c.batch == batch)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for store, status, count, size in connection.execute(query):
        found.setdefault(store, {})[status] = (count, int(size))
    return found


def pending(connection: sa.Connection, limit: int) -> list[Document]:
    """What waits to be ingested, the oldest first."""
    query = sa.select(documents).filter_by(status="in_progress", num_passages=0)
    query = query.where(documents.c.batch.not_like(f"{RUN}%"))
    found = connection.execute(query.order_by(documents.c.id).limit(limit))
    return [Document(**row._mapping) for row in found]


def finish(
    connection: sa.Connection,
    arms: Arms,
    document: Document,
    found: Sequence[Passage],
    vectors: Vectors | None,
) -> bool:
    """Write the passages, still unseen. False: somebody has done it, or deleted the document."""
    size = sum(len(it.indexed.encode(errors="replace")) for it in found)
    claim = documents.update().where(
        documents.c.id == document.id,
        documents.c.status == "in_progress",
        documents.c.num_passages == 0,
    )
    if not connection.execute(claim.values(num_passages=len(found), bytes=size)).rowcount:
        return False
    rows = [
        {
            "document": document.id,
            "start": it.start,
            "end": it.end,
            "store": word_of(document.store),
            "heading": it.heading,
            "text": it.text.replace("\0", ""),
            "hash": digest(it.indexed)[:32],
        }
        for it in found
    ]
    if rows:
        insert = passages.insert().returning(passages.c.id, sort_by_parameter_order=True)
        ids = list(connection.scalars(insert, rows))
        arms.add(connection, ids, vectors)
    if vectors is not None and len(vectors):
        _keep_dimensions(connection, document.store, vectors.shape[1])
    return True


def _keep_dimensions(connection: sa.Connection, store: str, dimensions: int) -> None:
    mine = vector_stores.c.id == store
    connection.execute(
        vector_stores.update()
        .where(mine, vector_stores.c.dimensions == 0)
        .values(dimensions=dimensions)
    )
    if connection.scalar(sa.select(vector_stores.c.dimensions).where(mine)) != dimensions:
        raise BadRequest("the embedder's vectors have another length", code="embedder_mismatch")


def fail(connection: sa.Connection, document: Document, error: str) -> None:
    connection.execute(
        documents.update()
        .where(documents.c.id == document.id, documents.c.status == "in_progress")
        .values(status="failed", error=error)
    )


def publish(
    connection: sa.Connection, store_id: str, ids: Sequence[int], gone: Iterable[str] = ()
) -> int:
    """The store's next snapshot: with these documents, without the files that are `gone`."""
    snapshot = connection.scalar(
        vector_stores.update()
        .where(vector_stores.c.id == store_id)
        .values(snapshot=vector_stores.c.snapshot + 1)
        .returning(vector_stores.c.snapshot)
    )
    if snapshot is None:
        raise NotFound(f"there is no vector store {store_id!r}")
    mine = documents.c.id.in_(ids) & (documents.c.status == "in_progress")
    connection.execute(documents.update().where(mine).values(status="completed", added=snapshot))
    replaced = sa.select(documents.c.file).where(documents.c.id.in_(ids))
    connection.execute(
        documents.update()
        .where(
            documents.c.store == store_id,
            documents.c.file.in_(replaced) | documents.c.file.in_(list(gone)),
            documents.c.id.not_in(ids),
            documents.c.removed.is_(None),
        )
        .values(removed=snapshot)
    )
    note(connection, TOPIC)
    return int(snapshot)


def detach(connection: sa.Connection, arms: Arms, tenant: str, store_id: str, file_id: str) -> None:
    """Out of every snapshot, in all its versions."""
    find_document(connection, tenant, store_id, file_id)
    _empty(connection, arms, (documents.c.store == store_id) & (documents.c.file == file_id))
    connection.execute(
        vector_stores.update()
        .where(vector_stores.c.id == store_id)
        .values(epoch=vector_stores.c.epoch + 1)
    )
    note(connection, TOPIC)


def change_attributes(
    connection: sa.Connection, tenant: str, store_id: str, file_id: str, given: dict[str, Any]
) -> Document:
    found = find_document(connection, tenant, store_id, file_id)
    change = documents.update().where(documents.c.id == found.id)
    connection.execute(change.values(attributes=given))
    return msgspec.structs.replace(found, attributes=given)


def cancel_batch(connection: sa.Connection, tenant: str, store_id: str, batch: str) -> None:
    find_store(connection, tenant, store_id)
    connection.execute(
        documents.update()
        .where(documents.c.store == store_id, documents.c.batch == batch)
        .where(documents.c.status == "in_progress")
        .values(status="cancelled")
    )


def _newest(connection: sa.Connection, store_id: str, file_id: str) -> Document | None:
    query = sa.select(documents).filter_by(store=store_id, file=file_id)
    row = connection.execute(query.order_by(documents.c.id.desc()).limit(1)).one_or_none()
    return Document(**row._mapping) if row else None


def _empty(connection: sa.Connection, arms: Arms, which: sa.ColumnElement[bool]) -> None:
    ids = list(connection.scalars(sa.select(documents.c.id).where(which)))
    mine = passages.c.document.in_(ids)
    if found := list(connection.scalars(sa.select(passages.c.id).where(mine))):
        arms.remove(connection, found)
    connection.execute(passages.delete().where(mine))
    connection.execute(documents.delete().where(documents.c.id.in_(ids)))


def delete_file(connection: sa.Connection, arms: Arms, tenant: str, file_id: str) -> None:
    """The file, and what it said in each of the tenant's stores."""
    find_file(connection, tenant, file_id)
    mine = sa.select(vector_stores.c.id).where(vector_stores.c.tenant == tenant)
    query = sa.select(documents.c.store).where(
        documents.c.file == file_id, documents.c.store.in_(mine)
    )
    for store in set(connection.scalars(query)):
        detach(connection, arms, tenant, store, file_id)
    connection.execute(files.delete().where(files.c.id == file_id))


def delete_store(connection: sa.Connection, arms: Arms, tenant: str, store_id: str) -> None:
    find_store(connection, tenant, store_id)
    _empty(connection, arms, documents.c.store == store_id)
    connection.execute(vector_stores.delete().where(vector_stores.c.id == store_id))
    note(connection, TOPIC)


def sweep(connection: sa.Connection, arms: Arms) -> None:
    """Empty the stores whose time is over."""
    ends = vector_stores.c.last_active_at + vector_stores.c.expires_days * DAY_MS
    for store in connection.scalars(sa.select(vector_stores.c.id).where(ends <= now_ms())).all():
        _empty(connection, arms, documents.c.store == store)
