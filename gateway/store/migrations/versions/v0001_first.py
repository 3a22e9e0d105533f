"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def texts(*names: str, key: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, primary_key=key, nullable=False) for name in names]


def numbers(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]


def upgrade() -> None:
    _create_moving()
    _create_ledger()


def _create_moving() -> None:
    op.create_table(
        "keys",
        *texts("id", key=True),
        *texts("name", "team", "limits", "hash"),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("families", sa.JSON, nullable=False),
        sa.Column("old_hash", sa.Text),
        *numbers("created_at", "version"),
        *numbers("old_until", "expires_at", "revoked_at", "last_used_at", nullable=True),
    )
    op.create_index("ix_keys_version", "keys", ["version"])
    op.create_table("teams", *texts("name", key=True), *texts("limits"), *numbers("created_at"))
    op.create_table(
        "budgets",
        *texts("subject", "period", key=True),
        *numbers("soft", "hard", nullable=True),
    )
    op.create_table(
        "labels",
        *texts("kind", "owner", "label", key=True),
        *texts("target"),
        sa.Column("previous", sa.Text),
        *numbers("changed_at"),
    )
    op.create_table(
        "weights",
        *texts("family", "label", key=True),
        sa.Column("share", sa.Double, nullable=False),
    )
    op.create_table("topics", *texts("name", key=True), *numbers("version"))


def _create_ledger() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        *numbers("at"),
        *texts("actor", "action", "subject", "before", "after", "why"),
    )
    op.create_table(
        "ledger",
        *texts("id", key=True),
        *texts("request_id", "route", "key", "team", "family", "release", "target"),
        *texts("usage_source", "finish", "outcome"),
        *numbers("started_at", "attempts", "prompt_tokens", "cached_tokens", "completion_tokens"),
        *numbers("cost", "total_us", "upstream_us"),
        *numbers("first_token_us", nullable=True),
    )
    killed = sa.text("outcome = 'killed'")
    op.create_index(
        "ix_ledger_killed", "ledger", ["id"], sqlite_where=killed, postgresql_where=killed
    )
    op.create_table(
        "usage_daily",
        *texts("day", "key", "team", "family", "release", key=True),
        *numbers("requests", "errors", "estimated"),
        *numbers("prompt_tokens", "cached_tokens", "completion_tokens", "cost"),
        sqlite_with_rowid=False,
    )
