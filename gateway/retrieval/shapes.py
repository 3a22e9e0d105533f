"""OpenAI's shapes of files and vector stores: what a request may say, and how rows are shown."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.config import Section
from gateway.retrieval.documents import Document
from gateway.retrieval.files import File, Order, Page
from gateway.retrieval.filters import Key
from gateway.retrieval.found import Found
from gateway.retrieval.passages import MAX_PIECES, OVERLAP
from gateway.retrieval.stores import VectorStore

Shown = dict[str, Any]
Name = Annotated[str, Meta(max_length=256)]
Text512 = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Text512], Meta(max_length=16)]
Attributes = Annotated[dict[Key, Text512 | bool | int | float], Meta(max_length=16)]
FileIds = Annotated[list[str], Meta(min_length=1, max_length=500)]


class Expiry(Section):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class Static(Section):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class Cutting(Section):
    """Passages are cut one way; to ask for another is refused."""

    type: Literal["auto", "static"]
    static: Static | None = None

    def __post_init__(self) -> None:
        if self.static != (STATIC if self.type == "static" else None):
            size, overlap = STATIC.max_chunk_size_tokens, STATIC.chunk_overlap_tokens
            raise ValueError(f"passages have {size} tokens and an overlap of {overlap}, or 'auto'")


STATIC = Static(max_chunk_size_tokens=MAX_PIECES, chunk_overlap_tokens=OVERLAP)
CUTTING = Cutting(type="static", static=STATIC)


class NewStore(Section):
    name: Name | None = None
    file_ids: FileIds | None = None
    expires_after: Expiry | None = None
    chunking_strategy: Cutting | None = None
    metadata: Metadata | None = None
    description: str | None = None


class StoreChange(Section):
    name: Name | None = None
    expires_after: Expiry | None = None
    metadata: Metadata | None = None


class NewDocument(Section):
    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: Cutting | None = None


class NewBatch(Section):
    file_ids: FileIds | None = None
    files: Annotated[list[NewDocument], Meta(min_length=1, max_length=500)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Cutting | None = None


class DocumentChange(Section):
    attributes: Attributes


class RankingOptions(Section):
    ranker: Literal["auto", "none", "default-2024-11-15", "default_2024_08_21"] = "auto"
    score_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Search(Section):
    query: str | Annotated[list[str], Meta(min_length=1, max_length=8)]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] = 10
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: Literal[False] = False


class Listing(Section):
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 20
    order: Order = "desc"
    after: str = ""
    before: str = ""
    purpose: str = ""
    filter: Literal["", "in_progress", "completed", "failed", "cancelled"] = ""

    def page(self, most: int) -> Page:
        return Page(
            limit=min(self.limit, most), order=self.order, after=self.after, before=self.before
        )


def of_file(file: File) -> Shown:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at // 1000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
    }


Counts = Mapping[str, tuple[int, int]]  # status → (documents, bytes)


def of_store(store: VectorStore, counts: Counts) -> Shown:
    ends, days = store.expires_at, store.expires_days
    is_busy = "in_progress" in counts
    return {
        "id": store.id,
        "object": "vector_store",
        "created_at": store.created_at // 1000,
        "name": store.name,
        "usage_bytes": sum(size for _, size in counts.values()),
        "file_counts": of_counts(counts),
        "status": "expired" if store.is_expired else "in_progress" if is_busy else "completed",
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if ends is None else ends // 1000,
        "last_active_at": store.last_active_at // 1000,
        "metadata": store.metadata,
        "snapshot": store.snapshot,
        "embedder": store.embedder,
    }


def of_counts(counts: Counts) -> dict[str, int]:
    names = ("in_progress", "completed", "failed", "cancelled")
    found = {name: counts.get(name, (0, 0))[0] for name in names}
    return found | {"total": sum(found.values())}


def of_document(document: Document) -> Shown:
    error = {"code": "invalid_file", "message": document.error} if document.error else None
    return {
        "id": document.file,
        "object": "vector_store.file",
        "usage_bytes": document.bytes,
        "created_at": document.created_at // 1000,
        "vector_store_id": document.store,
        "status": document.status,
        "last_error": error,
        "chunking_strategy": CUTTING,
        "attributes": document.attributes,
    }


def of_batch(store: str, batch: str, created_at: int, counts: Counts) -> Shown:
    is_busy = "in_progress" in counts
    ended = "cancelled" if "cancelled" in counts else "completed"
    return {
        "id": batch,
        "object": "vector_store.files_batch",
        "created_at": created_at // 1000,
        "vector_store_id": store,
        "status": "in_progress" if is_busy else ended,
        "file_counts": of_counts(counts),
    }


def of_found(query: Sequence[str], found: Found, threshold: float) -> Shown:
    data = [
        {
            "file_id": it.file,
            "filename": it.filename,
            "score": round(it.score, 6),
            "attributes": it.attributes,
            "content": [{"type": "text", "text": it.text}],
        }
        for it in found.hits
        if it.score >= threshold
    ]
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(query),
        "data": data,
        "has_more": False,
        "next_page": None,
    }


def of_list(rows: Sequence[Shown], limit: int) -> Shown:
    """`rows` may hold one more than `limit`, which tells that there are more."""
    data = list(rows[:limit])
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


def of_deleted(kind: str, name: str) -> Shown:
    return {"id": name, "object": kind, "deleted": True}
