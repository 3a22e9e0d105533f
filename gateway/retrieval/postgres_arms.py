"""The arms on PostgreSQL: one table with a tsvector and a vector of pgvector, both read exactly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from gateway.errors import Unavailable
from gateway.retrieval.arms import Scope, Vectors, seen_from, words_of

LOCK = 0x676C617374  # an advisory lock: any number that nobody else uses


class _Vector(sa.types.UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "vector"


_SEARCH = sa.table(
    "passage_search", sa.column("id", sa.BigInteger), sa.column("words"), sa.column("vector")
)


class PostgresArms:
    def prepare(self, connection: sa.Connection) -> None:
        if connection.scalar(sa.text("SELECT to_regclass('passage_search')")) is not None:
            return
        known = sa.text("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
        if not connection.scalar(known):
            raise Unavailable("vector stores on PostgreSQL need its extension pgvector")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        for statement in (
            "CREATE EXTENSION IF NOT EXISTS vector",
            "CREATE TABLE IF NOT EXISTS passage_search (id bigint PRIMARY KEY"
            " REFERENCES passages ON DELETE CASCADE, words tsvector NOT NULL, vector vector)",
            "CREATE INDEX IF NOT EXISTS ix_passage_search ON passage_search USING gin (words)",
        ):
            connection.exec_driver_sql(statement)

    def add(self, connection: sa.Connection, ids: Sequence[int], vectors: Vectors | None) -> None:
        texts = [None] * len(ids) if vectors is None else [_literal(row) for row in vectors]
        connection.execute(
            sa.text(
                "INSERT INTO passage_search"
                " SELECT id, to_tsvector('english', heading || ' ' || text),"
                " CAST(:vector AS vector) FROM passages WHERE id = :id"
            ),
            [{"id": i, "vector": text} for i, text in zip(ids, texts, strict=True)],
        )

    def remove(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        """They leave with their passages."""

    def vectors(self, connection: sa.Connection, ids: Sequence[int]) -> dict[int, Vectors]:
        text = sa.cast(_SEARCH.c.vector, sa.Text)
        query = sa.select(_SEARCH.c.id, text).where(_SEARCH.c.id.in_(ids), text.is_not(None))
        rows = connection.execute(query)
        return {row[0]: np.fromstring(row[1].strip("[]"), np.float32, sep=",") for row in rows}

    def by_words(
        self, connection: sa.Connection, scope: Scope, question: str, limit: int
    ) -> dict[int, float]:
        words = " or ".join(words_of(question))
        asked = sa.func.websearch_to_tsquery(sa.literal_column("'english'"), words)
        score = sa.func.ts_rank_cd(_SEARCH.c.words, asked, 1)
        return self._best(connection, scope, _SEARCH.c.words.op("@@")(asked), score, limit)

    def by_meaning(
        self, connection: sa.Connection, scope: Scope, vector: Vectors, limit: int
    ) -> dict[int, float]:
        given = sa.cast(sa.literal(_literal(vector)), _Vector)
        score: sa.ColumnElement[float] = 1 - _SEARCH.c.vector.op("<=>", return_type=sa.Double())(
            given
        )
        return self._best(connection, scope, _SEARCH.c.vector.is_not(None), score, limit)

    def _best(
        self,
        connection: sa.Connection,
        scope: Scope,
        where: sa.ColumnElement[bool],
        score: sa.ColumnElement[float],
        limit: int,
    ) -> dict[int, float]:
        query = (
            sa.select(_SEARCH.c.id, score.label("score"))
            .select_from(seen_from(_SEARCH, _SEARCH.c.id))
            .where(where, scope.visible)
            .order_by(sa.desc("score"), _SEARCH.c.id)
            .limit(limit)
        )
        return {row[0]: float(row[1]) for row in connection.execute(query)}


def _literal(vector: Vectors) -> str:
    return str(vector.tolist())
