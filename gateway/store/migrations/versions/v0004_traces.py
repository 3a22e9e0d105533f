"""Traces of requests, whole, for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("trace_id", "request_id", "key")),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    for name in ("trace_id", "request_id"):
        op.create_index(f"ix_traces_{name}", "traces", [name, "id"])
