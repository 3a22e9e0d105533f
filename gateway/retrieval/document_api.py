"""OpenAI's files in a vector store, one by one and in batches, as endpoints."""

from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin_store import as_json, body_of, change, query_of, read, state_of
from gateway.errors import BadRequest, NotFound
from gateway.retrieval import documents as docs
from gateway.retrieval import files, shapes, stores
from gateway.retrieval.asked import MOST, arms_in, named_in, tenant_in
from gateway.retrieval.files import new_id
from gateway.store.tables import passages


async def add_document(request: Request) -> Response:
    asked = await body_of(request, shapes.NewDocument)
    found = await _attach(request, [asked], "")
    return as_json(shapes.of_document(found[0]))


async def list_documents(request: Request) -> Response:
    asked = query_of(request, shapes.Listing)
    page = asked.page(MOST)
    batch = request.path_params.get("batch", "")
    name = named_in(request, "store")
    found = await read(
        request, docs.list_documents, tenant_in(request), name, page, asked.filter, batch
    )
    return as_json(shapes.of_list([shapes.of_document(it) for it in found], page.limit))


async def show_document(request: Request) -> Response:
    where = (tenant_in(request), named_in(request, "store"), named_in(request, "file"))
    return as_json(shapes.of_document(await read(request, docs.find_document, *where)))


async def change_document(request: Request) -> Response:
    attributes = (await body_of(request, shapes.DocumentChange)).attributes
    where = (tenant_in(request), named_in(request, "store"), named_in(request, "file"))
    found = await change(request, docs.change_attributes, *where, attributes)
    return as_json(shapes.of_document(found))


async def read_document(request: Request) -> Response:
    where = (tenant_in(request), named_in(request, "store"), named_in(request, "file"))
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
    where = (tenant_in(request), named_in(request, "store"), named_in(request, "file"))
    await change(request, docs.detach, arms_in(request), *where)
    return as_json(shapes.of_deleted("vector_store.file.deleted", where[2]))


async def create_batch(request: Request) -> Response:
    asked = await body_of(request, shapes.NewBatch)
    if (asked.file_ids is None) == (asked.files is None):
        raise BadRequest("name either 'file_ids' or 'files'", param="file_ids")
    items = asked.files or [shapes.NewDocument(file_id=it) for it in asked.file_ids or ()]
    for_all = asked.attributes or {}
    items = [replace(it, attributes={**for_all, **(it.attributes or {})}) for it in items]
    batch = new_id("vsfb_")
    await _attach(request, items, batch)
    return await _shown_batch(request, batch)


async def show_batch(request: Request) -> Response:
    return await _shown_batch(request, named_in(request, "batch"))


async def cancel_batch(request: Request) -> Response:
    batch, name = named_in(request, "batch"), named_in(request, "store")
    await change(request, docs.cancel_batch, tenant_in(request), name, batch)
    return await _shown_batch(request, batch)


async def _attach(
    request: Request, items: list[shapes.NewDocument], batch: str
) -> list[docs.Document]:
    pairs = [(it.file_id, it.attributes or {}) for it in items]
    where = (tenant_in(request), named_in(request, "store"))
    found = await change(request, _attach_all, *where, pairs, batch)
    state_of(request).ingester.wake()
    return found


async def _shown_batch(request: Request, batch: str) -> Response:
    name = named_in(request, "store")
    await read(request, stores.find_store, tenant_in(request), name)
    counts = (await read(request, docs.count_documents, [name], batch)).get(name)
    if not counts:
        raise NotFound(f"there is no file batch {batch!r}", param="batch_id")
    made_at = int(batch.removeprefix("vsfb_")[:12], 16)
    return as_json(shapes.of_batch(name, batch, made_at, counts))


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
