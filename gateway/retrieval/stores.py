"""Vector stores: names, snapshots, expiry. What is in them is `documents`'s.

Every function takes the tenant and sees nothing else.
"""

from typing import Any

import msgspec
import sqlalchemy as sa

from gateway.errors import BadRequest, NotFound
from gateway.retrieval.arms import Scope
from gateway.retrieval.files import Page, new_id, paged
from gateway.store.changes import note
from gateway.store.rows import DAY_MS, now_ms
from gateway.store.tables import vector_stores

TOUCH_MS = 60_000  # how exactly `last_active_at` is kept
TOPIC = "vector_stores"


class VectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """`embedder` is "model@release" whose vectors are in it; empty: none are."""

    id: str
    tenant: str
    name: str
    embedder: str
    metadata: dict[str, str]
    created_at: int
    last_active_at: int
    snapshot: int
    epoch: int
    dimensions: int
    expires_days: int | None

    @property
    def expires_at(self) -> int | None:
        days = self.expires_days
        return None if days is None else self.last_active_at + days * DAY_MS

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= now_ms()


def create_store(connection: sa.Connection, store: VectorStore) -> VectorStore:
    connection.execute(vector_stores.insert().values(msgspec.structs.asdict(store)))
    note(connection, TOPIC)
    return store


def new_store(
    tenant: str, name: str, embedder: str, metadata: dict[str, str], days: int | None = None
) -> VectorStore:
    now = now_ms()
    return VectorStore(
        id=new_id("vs_"),
        tenant=tenant,
        name=name,
        embedder=embedder,
        metadata=metadata,
        created_at=now,
        last_active_at=now,
        snapshot=0,
        epoch=0,
        dimensions=0,
        expires_days=days,
    )


def find_store(connection: sa.Connection, tenant: str, store_id: str) -> VectorStore:
    """Raises NotFound for another tenant's, too."""
    query = sa.select(vector_stores).where(
        vector_stores.c.id == store_id, vector_stores.c.tenant == tenant
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no vector store {store_id!r}", param="vector_store_id")
    return VectorStore(**row._mapping)


def named_store(connection: sa.Connection, tenant: str, name: str) -> VectorStore | None:
    """By name or id; the oldest of several."""
    query = sa.select(vector_stores).where(vector_stores.c.tenant == tenant)
    query = query.where(sa.or_(vector_stores.c.name == name, vector_stores.c.id == name))
    row = connection.execute(query.order_by(vector_stores.c.id).limit(1)).one_or_none()
    return VectorStore(**row._mapping) if row else None


def list_stores(connection: sa.Connection, tenant: str, page: Page) -> list[VectorStore]:
    query = sa.select(vector_stores).where(vector_stores.c.tenant == tenant)
    found = connection.execute(paged(query, vector_stores.c.id, page))
    return [VectorStore(**row._mapping) for row in found]


def all_stores(connection: sa.Connection, tenant: str) -> list[VectorStore]:
    query = sa.select(vector_stores).where(vector_stores.c.tenant == tenant)
    found = connection.execute(query.order_by(vector_stores.c.id.desc()))
    return [VectorStore(**row._mapping) for row in found]


def change_store(
    connection: sa.Connection, tenant: str, store_id: str, changes: dict[str, Any]
) -> VectorStore:
    find_store(connection, tenant, store_id)
    if changes:
        connection.execute(
            vector_stores.update().where(vector_stores.c.id == store_id).values(changes)
        )
        note(connection, TOPIC)
    return find_store(connection, tenant, store_id)


def touch(connection: sa.Connection, store: VectorStore) -> None:
    """It was used: its expiry is put off."""
    connection.execute(
        vector_stores.update().where(vector_stores.c.id == store.id).values(last_active_at=now_ms())
    )


def scope_of(
    store: VectorStore, snapshot: int | None = None, where: sa.ColumnElement[bool] | None = None
) -> Scope:
    """Raises BadRequest for a snapshot that is not there, or a store whose time is over."""
    if store.is_expired:
        raise BadRequest(f"vector store {store.id} has expired", code="vector_store_expired")
    if snapshot is not None and not 0 <= snapshot <= store.snapshot:
        raise BadRequest(f"vector store {store.name!r} has no snapshot {snapshot}")
    at = store.snapshot if snapshot is None else snapshot
    return Scope(store.tenant, store.id, at, (store.snapshot, store.epoch), where)
