"""The tables, as they are after the last migration; a test holds the two against each other.

Times are whole milliseconds since 1970 in UTC, days are ISO dates in UTC, money is whole
nano-dollars: what both databases keep and sum exactly.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

Counter = sa.BigInteger().with_variant(
    sa.Integer, "sqlite"
)  # only INTEGER counts up by itself there

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("families", sa.JSON, nullable=False),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("old_hash", sa.Text),
    sa.Column("old_until", sa.BigInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
)

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("soft", sa.BigInteger),
    sa.Column("hard", sa.BigInteger),
)

# kind "release": owner is a family and target a release; kind "prompt": a prompt and its version.
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("previous", sa.Text),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

weights = sa.Table(
    "weights",
    metadata,
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("share", sa.Double, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", Counter, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),
    sa.Column("after", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)

# The ids grow with time, so that new rows go to the end of the index and old ones leave by range.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("family", sa.Text, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("usage_source", sa.Text, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False),
    sa.Column("total_us", sa.BigInteger, nullable=False),
    sa.Column("first_token_us", sa.BigInteger),
    sa.Column("upstream_us", sa.BigInteger, nullable=False),
    sa.Column("finish", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
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
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("family", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Column("estimated", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,  # the rows lie in the order of the days, as they are read
)

# One counter for each kind of thing that replicas must notice a change of.
topics = sa.Table(
    "topics",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
