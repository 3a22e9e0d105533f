"""Files, vector stores, and the documents and passages in them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def texts(*names: str, key: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, primary_key=key, nullable=False) for name in names]


def numbers(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]


def counted() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "files",
        *texts("id", key=True),
        *texts("tenant", "filename", "purpose", "hash"),
        *numbers("bytes", "created_at"),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_files_tenant", "files", ["tenant", "id"])
    op.create_table(
        "vector_stores",
        *texts("id", key=True),
        *texts("tenant", "name", "embedder"),
        sa.Column("metadata", sa.JSON, nullable=False),
        *numbers("created_at", "last_active_at", "snapshot", "epoch", "dimensions"),
        *numbers("expires_days", nullable=True),
    )
    op.create_index("ix_vector_stores_tenant", "vector_stores", ["tenant", "name"])
    op.create_table(
        "documents",
        counted(),
        *texts("store", "file", "hash", "status", "error", "batch"),
        sa.Column("attributes", sa.JSON, nullable=False),
        *numbers("created_at", "bytes", "num_passages"),
        *numbers("added", "removed", nullable=True),
    )
    for column in ("file", "status"):
        op.create_index(f"ix_documents_{column}", "documents", [column])
    op.create_index("ix_documents_store", "documents", ["store", "file"])
    op.create_table(
        "passages",
        counted(),
        *numbers("document", "start", "end"),
        *texts("store", "heading", "text", "hash"),
    )
    op.create_index("ix_passages_document", "passages", ["document"])
