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
from gateway.errors import BadRequest, Unavailable
from gateway.reply import read_body
from gateway.retrieval import document_api as within
from gateway.retrieval import documents as docs
from gateway.retrieval import files, shapes, stores
from gateway.retrieval.arms import Arms
from gateway.retrieval.asked import MOST, arms_in, named_in, tenant_in
from gateway.retrieval.files import File, new_id
from gateway.retrieval.found import Found
from gateway.retrieval.index import How
from gateway.retrieval.ingest import file_hash
from gateway.retrieval.multipart import read_form
from gateway.retrieval.stores import VectorStore
from gateway.store.rows import now_ms

Endpoint = Callable[[Request], Awaitable[Response]]


async def upload_file(request: Request) -> Response:
    state = state_of(request)
    raw = await read_body(request.scope, request.receive, state.setup.config.server)
    form = read_form(request.headers.get("content-type", ""), raw)
    if unknown := form.keys() - {"file", "purpose"}:
        name = min(unknown).partition("[")[0]  # of expires_after[anchor]: what the client wrote
        raise BadRequest(f"an upload has no field {name!r} here", param=name)
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
    found = await read(request, files.list_files, tenant_in(request), page, asked.purpose)
    return as_json(shapes.of_list([shapes.of_file(it) for it in found], page.limit))


async def show_file(request: Request) -> Response:
    found = await read(request, files.find_file, tenant_in(request), named_in(request, "file"))
    return as_json(shapes.of_file(found))


async def download_file(request: Request) -> Response:
    content = await read(request, files.content_of, tenant_in(request), named_in(request, "file"))
    return Response(content, media_type="application/octet-stream")


async def delete_file(request: Request) -> Response:
    name = named_in(request, "file")
    await change(request, docs.delete_file, arms_in(request), tenant_in(request), name)
    return as_json(shapes.of_deleted("file", name))


async def create_store(request: Request) -> Response:
    asked = await body_of(request, shapes.NewStore)
    embedder = state_of(request).searcher.embedder
    days = asked.expires_after.days if asked.expires_after else None
    store = stores.new_store(
        tenant_in(request), asked.name or "", embedder.name if embedder else "",
        asked.metadata or {}, days,
    )  # fmt: skip
    await change(request, _create, arms_in(request), store, asked.file_ids or [])
    state_of(request).ingester.wake()
    return await _shown_store(request, store.id)


async def list_stores(request: Request) -> Response:
    page = query_of(request, shapes.Listing).page(MOST)
    found = await read(request, stores.list_stores, tenant_in(request), page)
    counts = await read(request, docs.count_documents, [it.id for it in found])
    rows = [shapes.of_store(it, counts.get(it.id, {})) for it in found]
    return as_json(shapes.of_list(rows, page.limit))


async def show_store(request: Request) -> Response:
    return await _shown_store(request, named_in(request, "store"))


async def change_store(request: Request) -> Response:
    asked = await body_of(request, shapes.StoreChange)
    changes: dict[str, Any] = {
        name: getattr(asked, name) for name in ("name", "metadata") if getattr(asked, name)
    }
    if asked.expires_after:
        changes["expires_days"] = asked.expires_after.days
    name = named_in(request, "store")
    await change(request, stores.change_store, tenant_in(request), name, changes)
    return await _shown_store(request, name)


async def delete_store(request: Request) -> Response:
    name = named_in(request, "store")
    await change(request, docs.delete_store, arms_in(request), tenant_in(request), name)
    return as_json(shapes.of_deleted("vector_store", name))


async def search_store(request: Request) -> Response:
    asked = await body_of(request, shapes.Search)
    state = state_of(request)
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    how = How(top_k=asked.max_num_results, filters=asked.filters)
    kept = await read(request, stores.find_store, tenant_in(request), named_in(request, "store"))
    try:
        found = [await state.searcher.search(kept.tenant, kept.id, query, how) for query in queries]
    except state.store.errors as error:
        raise Unavailable("the store does not answer") from error
    shown = shapes.of_found(queries, _merged(found, how), asked.ranking_options.score_threshold)
    return as_json(shown)


async def _shown_store(request: Request, name: str) -> Response:
    kept = await read(request, stores.find_store, tenant_in(request), name)
    counts = await read(request, docs.count_documents, [kept.id])
    return as_json(shapes.of_store(kept, counts.get(kept.id, {})))


def _create(connection: sa.Connection, arms: Arms, store: VectorStore, file_ids: list[str]) -> None:
    arms.prepare(connection)
    stores.create_store(connection, store)
    for name in file_ids:
        file = files.find_file(connection, store.tenant, name)
        docs.attach(connection, store, file, "", {})


def _merged(found: list[Found], how: How) -> Found:
    """Of several questions: each passage once, at its best score."""
    best = {hit.passage: hit for one in found for hit in sorted(one.hits, key=lambda it: it.score)}
    hits = sorted(best.values(), key=lambda it: (-it.score, it.passage))
    return msgspec.structs.replace(found[0], hits=hits[: how.top_k])


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
        ("POST", f"{_STORE}/files", within.add_document),
        ("GET", f"{_STORE}/files", within.list_documents),
        ("GET", f"{_STORE}/files/{{file}}", within.show_document),
        ("POST", f"{_STORE}/files/{{file}}", within.change_document),
        ("GET", f"{_STORE}/files/{{file}}/content", within.read_document),
        ("DELETE", f"{_STORE}/files/{{file}}", within.delete_document),
        ("POST", f"{_STORE}/file_batches", within.create_batch),
        ("GET", f"{_STORE}/file_batches/{{batch}}", within.show_batch),
        ("POST", f"{_STORE}/file_batches/{{batch}}/cancel", within.cancel_batch),
        ("GET", f"{_STORE}/file_batches/{{batch}}/files", within.list_documents),
    )
]
