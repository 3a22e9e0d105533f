"""The two ways to find a passage, by its words and by its meaning; here on SQLite.

What they stand on is made when the first store is: an FTS5 table (BM25) and vectors as float32
BLOBs, of which a store's matrix is kept in memory until the store changes. Who may see what is in
the `scope` of every query: nothing is found first and hidden afterwards.
"""

import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from cachetools import LRUCache

from gateway.store.tables import documents, passages, vector_stores

Vectors = npt.NDArray[np.float32]

MATRIX_BYTES = 1 << 30  # of all matrices in memory together
MAX_WORDS = 64  # of a question
_WORD = re.compile(r"\w+")
STOP = re.compile(  # words that tell no two passages apart
    "a|an|and|are|as|at|be|but|by|can|do|does|for|from|had|has|have|how|i|if|in|into|is|it|its|my"
    "|of|on|or|so|than|that|the|their|them|then|there|these|they|this|to|was|we|were|what|when"
    "|where|which|who|whose|why|will|with|would|you|your"
)


class Scope(msgspec.Struct, frozen=True):
    """What may be seen: one tenant's store at a snapshot, and a filter's condition on documents."""

    tenant: str
    store: str
    snapshot: int
    version: tuple[int, int]  # newest snapshot and epoch: a change of what there is
    where: sa.ColumnElement[bool] | None = None

    @property
    def visible(self) -> sa.ColumnElement[bool]:
        """On documents joined with vector_stores."""
        here = sa.and_(
            vector_stores.c.id == self.store,
            vector_stores.c.tenant == self.tenant,
            documents.c.added <= self.snapshot,
            sa.or_(documents.c.removed.is_(None), documents.c.removed > self.snapshot),
        )
        return here if self.where is None else sa.and_(here, self.where)


class Arms(Protocol):
    def prepare(self, connection: sa.Connection) -> None:
        """Makes what is missing. Raises Unavailable where the database cannot."""

    def add(self, connection: sa.Connection, ids: Sequence[int], vectors: Vectors | None) -> None:
        """Index passages that are in their table; vectors [N, D] of unit length."""

    def remove(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        """Before the passages leave their table."""

    def vectors(self, connection: sa.Connection, ids: Sequence[int]) -> dict[int, Vectors]:
        """Passage → vector [D], of those that have one. The caller may see them."""

    def by_words(
        self, connection: sa.Connection, scope: Scope, question: str, limit: int
    ) -> dict[int, float]:
        """Passage → score of keywords, the best first."""

    def by_meaning(
        self, connection: sa.Connection, scope: Scope, vector: Vectors, limit: int
    ) -> dict[int, float]:
        """Passage → cosine with the vector [D], the best first."""


def word_of(store: str) -> str:
    """A store's id as one word of the index."""
    return store.removeprefix("vs_")


def words_of(question: str) -> list[str]:
    """What of a question can tell passages apart; all of it where nothing can."""
    words = list(dict.fromkeys(_WORD.findall(question.lower())))[:MAX_WORDS]
    return [word for word in words if not STOP.fullmatch(word)] or words


def seen_from(table: sa.FromClause, passage: sa.ColumnElement[Any]) -> sa.FromClause:
    """`table` joined up to the store, so that a scope can be said of it."""
    joined = table.join(passages, passages.c.id == passage)
    joined = joined.join(documents, documents.c.id == passages.c.document)
    return joined.join(vector_stores, vector_stores.c.id == documents.c.store)


class _Matrix(NamedTuple):
    version: tuple[int, int]
    ids: npt.NDArray[np.int64]
    vectors: Vectors  # [N, D]
    added: npt.NDArray[np.int64]
    removed: npt.NDArray[np.int64]


_VECTORS = sa.table(
    "passage_vectors", sa.column("id", sa.Integer), sa.column("vector", sa.LargeBinary)
)
_WORDS = sa.table("passage_words", sa.column("rowid", sa.Integer))
_PLACES = sa.table("passage_places", sa.column("id", sa.Integer), sa.column("document", sa.Integer))


class SqliteArms:
    def __init__(self, matrix_bytes: int = MATRIX_BYTES) -> None:
        self._matrices: LRUCache[tuple[str, str], _Matrix] = LRUCache(
            matrix_bytes, getsizeof=lambda it: it.vectors.nbytes
        )
        self._lock = threading.Lock()

    def prepare(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "CREATE VIRTUAL TABLE IF NOT EXISTS passage_words USING fts5(store, heading, text,"
            " content='passages', content_rowid='id', tokenize='porter unicode61')"
        )
        for table, column in (("vectors", "vector BLOB"), ("places", "document INTEGER")):
            connection.exec_driver_sql(
                f"CREATE TABLE IF NOT EXISTS passage_{table} (id INTEGER PRIMARY KEY, {column})"
            )

    def add(self, connection: sa.Connection, ids: Sequence[int], vectors: Vectors | None) -> None:
        each = [(passage,) for passage in ids]
        connection.exec_driver_sql(
            "INSERT INTO passage_words (rowid, store, heading, text)"
            " SELECT id, store, heading, text FROM passages WHERE id = ?", each
        )  # fmt: skip
        connection.exec_driver_sql(
            "INSERT INTO passage_places SELECT id, document FROM passages WHERE id = ?", each
        )
        if vectors is not None:
            blobs = [(i, row.tobytes()) for i, row in zip(ids, vectors, strict=True)]
            connection.exec_driver_sql("INSERT INTO passage_vectors VALUES (?, ?)", blobs)

    def remove(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        each = [(passage,) for passage in ids]
        connection.exec_driver_sql(
            "INSERT INTO passage_words (passage_words, rowid, store, heading, text)"
            " SELECT 'delete', id, store, heading, text FROM passages WHERE id = ?", each
        )  # fmt: skip
        for table in ("vectors", "places"):
            connection.exec_driver_sql(f"DELETE FROM passage_{table} WHERE id = ?", each)  # noqa: S608

    def by_words(
        self, connection: sa.Connection, scope: Scope, question: str, limit: int
    ) -> dict[int, float]:
        words = " OR ".join(f'"{word}"' for word in words_of(question))
        if not words:
            return {}
        # The store's own word narrows what is looked at and weighs nothing.
        score: sa.ColumnElement[float] = sa.literal_column("bm25(passage_words, 0.0, 1.0, 1.0)")
        # A word may be in thousands of passages: whose they are is read from narrow rows.
        joined = _WORDS.join(_PLACES, _PLACES.c.id == _WORDS.c.rowid)
        joined = joined.join(documents, documents.c.id == _PLACES.c.document)
        query = (
            sa.select(_WORDS.c.rowid, score)
            .select_from(joined.join(vector_stores, vector_stores.c.id == documents.c.store))
            .where(sa.text("passage_words MATCH :match"), scope.visible)
            .order_by(score, _WORDS.c.rowid)
            .limit(limit)
        )
        match = {"match": f'store : "{word_of(scope.store)}" AND {{heading text}} : ({words})'}
        return {row[0]: -row[1] for row in connection.execute(query, match)}

    def by_meaning(
        self, connection: sa.Connection, scope: Scope, vector: Vectors, limit: int
    ) -> dict[int, float]:
        matrix = self._matrix(connection, scope)
        if not len(matrix.ids):
            return {}
        is_seen = (matrix.added <= scope.snapshot) & (matrix.removed > scope.snapshot)
        if scope.where is not None:
            is_seen &= np.isin(matrix.ids, self._passing(connection, scope))
        scores = np.where(is_seen, matrix.vectors @ vector, -np.inf)
        count = min(limit, int(is_seen.sum()))
        if not count:
            return {}
        best = np.argpartition(-scores, count - 1)[:count]
        order = best[np.lexsort((matrix.ids[best], -scores[best]))]
        return dict(zip(matrix.ids[order].tolist(), scores[order].tolist(), strict=True))

    def vectors(self, connection: sa.Connection, ids: Sequence[int]) -> dict[int, Vectors]:
        query = sa.select(_VECTORS.c.id, _VECTORS.c.vector).where(_VECTORS.c.id.in_(ids))
        return {row[0]: np.frombuffer(row[1], np.float32) for row in connection.execute(query)}

    def _passing(self, connection: sa.Connection, scope: Scope) -> list[int]:
        query = sa.select(passages.c.id).select_from(
            passages.join(documents, documents.c.id == passages.c.document).join(
                vector_stores, vector_stores.c.id == documents.c.store
            )
        )
        return list(connection.scalars(query.where(scope.visible)))

    def _matrix(self, connection: sa.Connection, scope: Scope) -> _Matrix:
        key = (scope.tenant, scope.store)
        with self._lock:  # two threads that miss would both read it all
            matrix = self._matrices.get(key)
            if matrix is None or matrix.version != scope.version:
                matrix = self._load(connection, scope)
                if matrix.vectors.nbytes <= self._matrices.maxsize:
                    self._matrices[key] = matrix
        return matrix

    def _load(self, connection: sa.Connection, scope: Scope) -> _Matrix:
        query = (
            sa.select(_VECTORS.c.id, _VECTORS.c.vector, documents.c.added, documents.c.removed)
            .select_from(seen_from(_VECTORS, _VECTORS.c.id))
            .where(
                vector_stores.c.id == scope.store,
                vector_stores.c.tenant == scope.tenant,
                documents.c.added.is_not(None),
            )
            .order_by(_VECTORS.c.id)
        )
        rows = connection.execute(query).all()
        forever = np.iinfo(np.int64).max
        return _Matrix(
            scope.version,
            np.array([row[0] for row in rows], np.int64),
            np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), -1)
            if rows else np.zeros((0, 0), np.float32),
            np.array([row[2] for row in rows], np.int64),
            np.array([forever if row[3] is None else row[3] for row in rows], np.int64),
        )  # fmt: skip
