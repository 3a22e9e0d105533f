"""OpenAI's Files and Vector Stores, with one tenant for each team or key.

Nobody reads, counts or finds what is another tenant's: each function of the store takes the tenant
into its query, so that what is not one's own is not there. Requests count against the limits of
the key, its team and everybody.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin_store import as_json, body_of, change, query_of, read, state_of
from gateway.admit import counted
from gateway.errors import BadRequest, NotFound, Unavailable
from gateway.reply import read_body
from gateway.retrieval import documents as docs
from gateway.retrieval import files, shapes, stores
from gateway.retrieval.arms import Arms
from gateway.retrieval.files import File, new_id
from gateway.retrieval.found import Found
from gateway.retrieval.index import How
from gateway.retrieval.ingest import file_hash
from gateway.retrieval.multipart import read_form
from gateway.retrieval.stores import VectorStore
from gateway.store.rows import now_ms
from gateway.store.tables import passages

Endpoint = Callable[[Request], Awaitable[Response]]
MOST = 100  # rows of a page, but for files


async def upload_file(request: Request) -> Response:
    state = state_of(request)
    raw = await read_body(request.scope, request.receive, state.setup.config.server)
    form = read_form(request.headers.get("content-type", ""), raw)
    filename, content = form.get("file", ("", b""))
    purpose = form.get("purpose", ("", b""))[1].decode("utf-8", "replace")
    if not filename:
        raise BadRequest("'file' is missing", param="file")
    if purpose not in ("assistants", "user_data"):
        raise BadRequest("'purpose' must be assistants or user_data", param="purpose")
    file = File(
        id=new_id("file-"),
        tenant=request.scope["principal"].tenant,
        filename=filename[:512],
        purpose=purpose,
        hash=file_hash(content),
        bytes=len(content),
        created_at=now_ms(),
    )
    limits = state.setup.config.retrieval
    await change(request, files.add_file, file, content, limits.max_files, limits.max_bytes)
    return as_json(shapes.of_file(file))


async def list_files(request: Request) -> Response:
    asked = query_of(request, shapes.Listing)
    page = asked.page(10_000)
    found = await read(request, files.list_files, _tenant(request), page, asked.purpose)
    return as_json(shapes.of_list([shapes.of_file(it) for it in found], page.limit))


async def show_file(request: Request) -> Response:
    found = await read(request, files.find_file, _tenant(request), _at(request, "file"))
    return as_json(shapes.of_file(found))


async def download_file(request: Request) -> Response:
    content = await read(request, files.content_of, _tenant(request), _at(request, "file"))
    return Response(content, media_type="application/octet-stream")


async def delete_file(request: Request) -> Response:
    name = _at(request, "file")
    await change(request, docs.delete_file, _arms(request), _tenant(request), name)
    return as_json(shapes.of_deleted("file", name))


async def create_store(request: Request) -> Response:
    asked = await body_of(request, shapes.NewStore)
    embedder = state_of(request).searcher.embedder
    days = asked.expires_after.days if asked.expires_after else None
    store = stores.new_store(
        _tenant(request), asked.name or "", embedder.name if embedder else "",
        asked.metadata or {}, days,
    )  # fmt: skip
    await change(request, _create, _arms(request), store, asked.file_ids or [])
    state_of(request).ingester.wake()
    return await _shown_store(request, store.id)


async def list_stores(request: Request) -> Response:
    page = query_of(request, shapes.Listing).page(MOST)
    found = await read(request, stores.list_stores, _tenant(request), page)
    counts = await read(request, docs.count_documents, [it.id for it in found])
    rows = [shapes.of_store(it, counts.get(it.id, {})) for it in found]
    return as_json(shapes.of_list(rows, page.limit))


async def show_store(request: Request) -> Response:
    return await _shown_store(request, _at(request, "store"))


async def change_store(request: Request) -> Response:
    asked = await body_of(request, shapes.StoreChange)
    changes: dict[str, Any] = {
        name: getattr(asked, name) for name in ("name", "metadata") if getattr(asked, name)
    }
    if asked.expires_after:
        changes["expires_days"] = asked.expires_after.days
    name = _at(request, "store")
    await change(request, stores.change_store, _tenant(request), name, changes)
    return await _shown_store(request, name)


async def delete_store(request: Request) -> Response:
    name = _at(request, "store")
    await change(request, docs.delete_store, _arms(request), _tenant(request), name)
    return as_json(shapes.of_deleted("vector_store", name))


async def search_store(request: Request) -> Response:
    asked = await body_of(request, shapes.Search)
    state = state_of(request)
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    how = How(top_k=asked.max_num_results, filters=asked.filters)
    kept = await read(request, stores.find_store, _tenant(request), _at(request, "store"))
    try:
        found = [await state.searcher.search(kept.tenant, kept.id, query, how) for query in queries]
    except state.store.errors as error:
        raise Unavailable("the store does not answer") from error
    shown = shapes.of_found(queries, _merged(found, how), asked.ranking_options.score_threshold)
    return as_json(shown)


async def add_document(request: Request) -> Response:
    asked = await body_of(request, shapes.NewDocument)
    found = await _attach(request, [asked], "")
    return as_json(shapes.of_document(found[0]))


async def list_documents(request: Request) -> Response:
    asked = query_of(request, shapes.Listing)
    page = asked.page(MOST)
    batch = request.path_params.get("batch", "")
    name = _at(request, "store")
    found = await read(
        request, docs.list_documents, _tenant(request), name, page, asked.filter, batch
    )
    return as_json(shapes.of_list([shapes.of_document(it) for it in found], page.limit))


async def show_document(request: Request) -> Response:
    where = (_tenant(request), _at(request, "store"), _at(request, "file"))
    return as_json(shapes.of_document(await read(request, docs.find_document, *where)))


async def change_document(request: Request) -> Response:
    attributes = (await body_of(request, shapes.DocumentChange)).attributes
    where = (_tenant(request), _at(request, "store"), _at(request, "file"))
    found = await change(request, docs.change_attributes, *where, attributes)
    return as_json(shapes.of_document(found))


async def read_document(request: Request) -> Response:
    where = (_tenant(request), _at(request, "store"), _at(request, "file"))
    texts = await read(request, _passages_of, *where)
    data = [{"type": "text", "text": text} for text in texts]
    return as_json(
        {
            "object": "vector_store.file_content.page",
            "data": data,
            "has_more": False,
            "next_page": None,
        }
    )


async def delete_document(request: Request) -> Response:
    where = (_tenant(request), _at(request, "store"), _at(request, "file"))
    await change(request, docs.detach, _arms(request), *where)
    return as_json(shapes.of_deleted("vector_store.file.deleted", where[2]))


async def create_batch(request: Request) -> Response:
    asked = await body_of(request, shapes.NewBatch)
    if (asked.file_ids is None) == (asked.files is None):
        raise BadRequest("name either 'file_ids' or 'files'", param="file_ids")
    items = asked.files or [
        shapes.NewDocument(file_id=it, attributes=asked.attributes) for it in asked.file_ids or ()
    ]
    batch = new_id("vsfb_")
    await _attach(request, items, batch)
    return await _shown_batch(request, batch)


async def show_batch(request: Request) -> Response:
    return await _shown_batch(request, _at(request, "batch"))


async def cancel_batch(request: Request) -> Response:
    batch, name = _at(request, "batch"), _at(request, "store")
    await change(request, docs.cancel_batch, _tenant(request), name, batch)
    return await _shown_batch(request, batch)


async def _attach(
    request: Request, items: list[shapes.NewDocument], batch: str
) -> list[docs.Document]:
    pairs = [(it.file_id, it.attributes or {}) for it in items]
    where = (_tenant(request), _at(request, "store"))
    found = await change(request, _attach_all, *where, pairs, batch)
    state_of(request).ingester.wake()
    return found


async def _shown_store(request: Request, name: str) -> Response:
    kept = await read(request, stores.find_store, _tenant(request), name)
    counts = await read(request, docs.count_documents, [kept.id])
    return as_json(shapes.of_store(kept, counts.get(kept.id, {})))


async def _shown_batch(request: Request, batch: str) -> Response:
    name = _at(request, "store")
    await read(request, stores.find_store, _tenant(request), name)
    counts = (await read(request, docs.count_documents, [name], batch)).get(name)
    if not counts:
        raise NotFound(f"there is no file batch {batch!r}", param="batch_id")
    made_at = int(batch.removeprefix("vsfb_")[:12], 16)
    return as_json(shapes.of_batch(name, batch, made_at, counts))


def _create(connection: sa.Connection, arms: Arms, store: VectorStore, file_ids: list[str]) -> None:
    arms.prepare(connection)
    stores.create_store(connection, store)
    for name in file_ids:
        file = files.find_file(connection, store.tenant, name)
        docs.attach(connection, store, file, "", {})


def _attach_all(
    connection: sa.Connection,
    tenant: str,
    store_id: str,
    pairs: list[tuple[str, dict[str, Any]]],
    batch: str,
) -> list[docs.Document]:
    """All of them or none."""
    store = stores.find_store(connection, tenant, store_id)
    stores.scope_of(store)  # one whose time is over takes nothing
    return [
        docs.attach(connection, store, files.find_file(connection, tenant, name), batch, given)
        for name, given in pairs
    ]


def _passages_of(connection: sa.Connection, tenant: str, store_id: str, file_id: str) -> list[str]:
    document = docs.find_document(connection, tenant, store_id, file_id)
    query = sa.select(passages.c.text).filter_by(document=document.id)
    return list(connection.scalars(query.order_by(passages.c.id)))


def _merged(found: list[Found], how: How) -> Found:
    """Of several questions: each passage once, at its best score."""
    best = {hit.passage: hit for one in found for hit in sorted(one.hits, key=lambda it: it.score)}
    hits = sorted(best.values(), key=lambda it: (-it.score, it.passage))
    return msgspec.structs.replace(found[0], hits=hits[: how.top_k])


def _tenant(request: Request) -> str:
    tenant: str = request.scope["principal"].tenant
    return tenant


def _at(request: Request, name: str) -> str:
    found: str = request.path_params[name]
    return found


def _arms(request: Request) -> Arms:
    return state_of(request).searcher.arms


def _counted(endpoint: Endpoint) -> Endpoint:
    async def under_limits(request: Request) -> Response:
        async with counted(request.scope["principal"], state_of(request)):
            return await endpoint(request)

    return under_limits


_STORE = "/v1/vector_stores/{store}"
ROUTES = [
    (method, path, _counted(endpoint))
    for method, path, endpoint in (
        ("POST", "/v1/files", upload_file),
        ("GET", "/v1/files", list_files),
        ("GET", "/v1/files/{file}", show_file),
        ("GET", "/v1/files/{file}/content", download_file),
        ("DELETE", "/v1/files/{file}", delete_file),
        ("POST", "/v1/vector_stores", create_store),
        ("GET", "/v1/vector_stores", list_stores),
        ("GET", _STORE, show_store),
        ("POST", _STORE, change_store),
        ("DELETE", _STORE, delete_store),
        ("POST", f"{_STORE}/search", search_store),
        ("POST", f"{_STORE}/files", add_document),
        ("GET", f"{_STORE}/files", list_documents),
        ("GET", f"{_STORE}/files/{{file}}", show_document),
        ("POST", f"{_STORE}/files/{{file}}", change_document),
        ("GET", f"{_STORE}/files/{{file}}/content", read_document),
        ("DELETE", f"{_STORE}/files/{{file}}", delete_document),
        ("POST", f"{_STORE}/file_batches", create_batch),
        ("GET", f"{_STORE}/file_batches/{{batch}}", show_batch),
        ("POST", f"{_STORE}/file_batches/{{batch}}/cancel", cancel_batch),
        ("GET", f"{_STORE}/file_batches/{{batch}}/files", list_documents),
    )
]
