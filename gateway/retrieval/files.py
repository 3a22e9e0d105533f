"""Files as they were uploaded, and how lists are paged.

Every function takes the tenant and sees nothing else.
"""

import secrets
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from gateway.errors import BadRequest, NotFound
from gateway.store.rows import now_ms, put
from gateway.store.tables import files

Order = Literal["asc", "desc"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant: str
    filename: str
    purpose: str
    hash: str
    bytes: int
    created_at: int


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Of a list by age: `after` and `before` are ids that were seen."""

    limit: int = 20
    order: Order = "desc"
    after: str = ""
    before: str = ""


def new_id(prefix: str) -> str:
    """Grows with time, so that ids sort by age."""
    return f"{prefix}{now_ms():012x}{secrets.token_hex(6)}"


def put_file(connection: sa.Connection, file: File, content: bytes) -> File:
    put(connection, files, msgspec.structs.asdict(file) | {"content": content})
    return file


def add_file(
    connection: sa.Connection, file: File, content: bytes, max_files: int, max_bytes: int
) -> File:
    """Raises BadRequest when the tenant has no room left."""
    sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
    count, size = connection.execute(sums.where(files.c.tenant == file.tenant)).one()
    if count >= max_files or size + file.bytes > max_bytes:
        room = f"{max_files} files of {max_bytes} bytes together"
        raise BadRequest(f"there is room for {room}", param="file", code="no_room")
    return put_file(connection, file, content)


def find_file(connection: sa.Connection, tenant: str, file_id: str) -> File:
    """Raises NotFound for another tenant's, too."""
    columns = [it for it in files.c if it.name != "content"]
    query = sa.select(*columns).where(files.c.id == file_id, files.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no file {file_id!r}", param="file_id")
    return File(**row._mapping)


def content_of(connection: sa.Connection, tenant: str, file_id: str) -> bytes:
    query = sa.select(files.c.content).where(files.c.id == file_id, files.c.tenant == tenant)
    content: bytes | None = connection.scalar(query)
    if content is None:
        raise NotFound(f"there is no file {file_id!r}", param="file_id")
    return content


def list_files(connection: sa.Connection, tenant: str, page: Page, purpose: str = "") -> list[File]:
    columns = [it for it in files.c if it.name != "content"]
    query = sa.select(*columns).where(files.c.tenant == tenant)
    if purpose:
        query = query.where(files.c.purpose == purpose)
    return [File(**row._mapping) for row in connection.execute(paged(query, files.c.id, page))]


def paged(query: sa.Select[Any], key: sa.ColumnElement[Any], page: Page) -> sa.Select[Any]:
    """One row more than asked for tells whether there are more."""
    is_up = page.order == "asc"
    number = isinstance(key.type, sa.Integer)
    if page.after:
        after = int(page.after) if number else page.after
        query = query.where(key > after if is_up else key < after)
    if page.before:
        before = int(page.before) if number else page.before
        query = query.where(key < before if is_up else key > before)
    return query.order_by(key if is_up else key.desc()).limit(page.limit + 1)
