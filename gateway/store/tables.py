"""The tables, as they are after the last migration; a test holds the two against each other.

Times are whole milliseconds since 1970 in UTC, days are ISO dates in UTC, money is whole
nano-dollars: what both databases keep and sum exactly.
"""

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


def texts(*names: str, key: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text, primary_key=key, nullable=False) for name in names]


def numbers(*names: str, nullable: bool = False) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=nullable) for name in names]


keys = sa.Table(
    "keys",
    metadata,
    *texts("id", key=True),
    *texts("name", "team", "limits", "hash"),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("families", sa.JSON, nullable=False),
    sa.Column("old_hash", sa.Text),
    *numbers("created_at"),
    *numbers("old_until", "expires_at", "revoked_at", "last_used_at", nullable=True),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
)

teams = sa.Table(
    "teams", metadata, *texts("name", key=True), *texts("limits"), *numbers("created_at")
)

budgets = sa.Table(
    "budgets",
    metadata,
    *texts("subject", "period", key=True),
    *numbers("soft", "hard", nullable=True),
)

# kind "release": owner is a family and target a release; kind "prompt": a prompt and its version.
labels = sa.Table(
    "labels",
    metadata,
    *texts("kind", "owner", "label", key=True),
    *texts("target"),
    sa.Column("previous", sa.Text),
    *numbers("changed_at"),
)

weights = sa.Table(
    "weights",
    metadata,
    *texts("family", "label", key=True),
    sa.Column("share", sa.Double, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    # On SQLite only an INTEGER counts up by itself.
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *numbers("at"),
    *texts("actor", "action", "subject", "before", "after", "why"),
)

# The ids grow with time, so that new rows go to the end of the index and old ones leave by range.
ledger = sa.Table(
    "ledger",
    metadata,
    *texts("id", key=True),
    *texts("request_id", "route", "key", "team", "family", "release", "target"),
    *texts("usage_source", "finish", "outcome"),
    *numbers("started_at", "attempts", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *numbers("cost", "total_us", "upstream_us"),
    *numbers("first_token_us", nullable=True),
)
sa.Index(
    "ix_ledger_killed",
    ledger.c.id,
    sqlite_where=ledger.c.outcome == "killed",
    postgresql_where=ledger.c.outcome == "killed",
)

usage_daily = sa.Table(
    "usage_daily",
    metadata,
    *texts("day", "key", "team", "family", "release", key=True),
    *numbers("requests", "errors", "estimated"),
    *numbers("prompt_tokens", "cached_tokens", "completion_tokens", "cost"),
    sqlite_with_rowid=False,  # the rows lie in the order of the days, as they are read
)

# `tenant` is "team:NAME", "key:ID", or "" for who runs the gateway. A file of OpenAI's Files API.
files = sa.Table(
    "files",
    metadata,
    *texts("id", key=True),
    *texts("tenant", "filename", "purpose", "hash"),
    *numbers("bytes", "created_at"),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Index("ix_files_tenant", "tenant", "id"),
)

# `snapshot` counts up with what is added or replaced, `epoch` with what is deleted from them all.
vector_stores = sa.Table(
    "vector_stores",
    metadata,
    *texts("id", key=True),
    *texts("tenant", "name", "embedder"),
    sa.Column("metadata", sa.JSON, nullable=False),
    *numbers("created_at", "last_active_at", "snapshot", "epoch", "dimensions"),
    *numbers("expires_days", nullable=True),
    sa.Index("ix_vector_stores_tenant", "tenant", "name"),
)

# A version of a file in a store: seen by the snapshots from `added` to before `removed`.
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *texts("store", "file", "hash", "status", "error", "batch"),
    sa.Column("attributes", sa.JSON, nullable=False),
    *numbers("created_at", "bytes", "num_passages"),
    *numbers("added", "removed", nullable=True),
    sa.Index("ix_documents_store", "store", "file"),
    sa.Index("ix_documents_file", "file"),
    sa.Index("ix_documents_status", "status"),
)

# What finds them (words, vectors) is made by `retrieval.arms`, as each database has it.
passages = sa.Table(
    "passages",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *numbers("document", "start", "end"),
    *texts("store", "heading", "text", "hash"),
    sa.Index("ix_passages_document", "document"),
)

# `definition` is the whole eval, cases included: a report needs no file, and a file that changes
# does not change an old run.
eval_runs = sa.Table(
    "eval_runs",
    metadata,
    *texts("id", key=True),
    *texts("name", "hash"),
    sa.Column("definition", sa.JSON, nullable=False),
    *numbers("created_at"),
    *numbers("finished_at", nullable=True),
)

# One answer: to a case, by a target, the n-th time. `scores` is by grader.
eval_items = sa.Table(
    "eval_items",
    metadata,
    *texts("run", "target", "case", key=True),
    sa.Column("sample", sa.BigInteger, primary_key=True),
    *texts("answer", "error"),
    sa.Column("scores", sa.JSON, nullable=False),
    *numbers("prompt_tokens", "completion_tokens", "cost", "total_us"),
)

# One counter for each kind of thing that replicas must notice a change of.
topics = sa.Table("topics", metadata, *texts("name", key=True), *numbers("version"))

# Traces that were kept: `id` is that of the ledger's row, `data` a `Trace` as JSON.
traces = sa.Table(
    "traces",
    metadata,
    *texts("id", key=True),
    *texts("trace_id", "request_id", "key"),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Index("ix_traces_trace_id", "trace_id", "id"),
    sa.Index("ix_traces_request_id", "request_id", "id"),
)
