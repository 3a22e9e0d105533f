"""The small library that the chapter on retrieval works with: 28 topics of Python's own reference.

Cut, embedded and indexed by the gateway's own stages, once per process; the questions are those of
the golden set that these topics answer, and those that no topic answers.
"""

import json
import math
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.metrics import Metrics
from gateway.retrieval import documents as docs
from gateway.retrieval.files import File, put_file
from gateway.retrieval.found import Hit
from gateway.retrieval.index import Searcher, read_hits
from gateway.retrieval.parsers import TOPICS, parse
from gateway.retrieval.passages import MAX_PIECES, Passage, Pieces, cut
from gateway.retrieval.stores import create_store, find_store, new_store, scope_of
from gateway.setup import pulled_tokenizer
from gateway.store import Store
from model.weights import load_minilm

Vectors = npt.NDArray[np.float32]

GOLDEN = Path(__file__).parent.parent / "tests" / "goldens" / "topics.jsonl"
NAMES = (
    "assert", "augassign", "binary", "booleans", "break", "calls", "class", "comparisons",
    "continue", "del", "exceptions", "for", "function", "global", "id-classes", "import",
    "integers", "lambda", "nonlocal", "objects", "pass", "power", "raise", "return", "truth",
    "try", "unary", "with",
)  # fmt: skip
DEPTH = 50


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    spans: tuple[str, ...]


@cache
def questions() -> tuple[Question, ...]:
    """Those that the shelf answers; and the unanswerable ones, which have no spans."""
    rows = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    return tuple(
        Question(row["kind"], row["question"], tuple(row["spans"]))
        for row in rows
        if set(row["topics"]) <= set(NAMES)
    )


def answerable(kind: str = "") -> list[Question]:
    return [it for it in questions() if it.spans and kind in ("", it.kind)]


@cache
def pieces() -> Pieces:
    return Pieces(pulled_tokenizer("minilm"))


def embed(texts: Sequence[str]) -> Vectors:
    """[N, 384] of unit length."""
    return np.concatenate([
        _network().encode_texts(list(texts[at : at + 16])) for at in range(0, len(texts), 16)
    ])  # fmt: skip


@cache
def _network():  # type: ignore[no-untyped-def]
    return load_minilm("minilm")


def passages(limit: int = MAX_PIECES) -> list[Passage]:
    """The shelf's passages, cut to at most `limit` pieces."""
    return [it for name in NAMES for it in cut(_document(name), pieces(), limit)]


def _document(name: str):  # type: ignore[no-untyped-def]
    from pydoc_data.topics import topics

    return parse(f"{TOPICS}/{name}", topics[name].encode())


class Shelf:
    """A store of the gateway's in a temporary file, with both arms."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.store = Store.open(f"sqlite:///{self._folder.name}/shelf.db")
        self.searcher = Searcher(self.store, Metrics())
        self.arms = self.searcher.arms
        with self.store.begin(write=True) as connection:
            self.arms.prepare(connection)
            kept = create_store(connection, new_store("", "shelf", "minilm@lesson", {}))
            for name in NAMES:
                found = cut(_document(name), pieces())
                file = File(id=f"file-{name}", tenant="", filename=name, purpose="assistants",
                            hash=name, bytes=1, created_at=1)  # fmt: skip
                put_file(connection, file, b"x")
                document = docs.attach(connection, kept, file, "", {})
                vectors = embed([it.indexed for it in found])
                docs.finish(connection, self.arms, document, found, vectors)
                docs.publish(connection, kept.id, [document.id])
            self.scope = scope_of(find_store(connection, "", kept.id))
        everything = self.hits(range(1, 1 + len(passages())))
        self._texts = {it.passage: " ".join(it.text.split()) for it in everything}

    def by_words(self, question: str) -> dict[int, float]:
        with self.store.begin() as connection:
            return self.arms.by_words(connection, self.scope, question, DEPTH)

    def by_meaning(self, vector: Vectors) -> dict[int, float]:
        with self.store.begin() as connection:
            return self.arms.by_meaning(connection, self.scope, vector, DEPTH)

    def hits(self, ranking: Sequence[int]) -> list[Hit]:
        with self.store.begin() as connection:
            return read_hits(connection, self.scope, ranking)

    def texts(self) -> dict[int, str]:
        """Passage → its text, white space made even."""
        return self._texts

    def relevant(self, question: Question) -> set[int]:
        """Passages that hold a gold span whole, or half of one that a cut went through."""
        halves = [half for span in question.spans for half in _halves(span)]
        return {name for name, text in self.texts().items() if any(it in text for it in halves)}


def _halves(span: str) -> tuple[str, str]:
    words = span.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]), " ".join(words[-middle:])


@cache
def shelf() -> Shelf:
    return Shelf()


@cache
def rankings() -> dict[str, tuple[dict[int, float], dict[int, float]]]:
    """Question → (by words, by meaning)."""
    asked = [it.text for it in questions()]
    vectors = embed(asked)
    return {
        text: (shelf().by_words(text), shelf().by_meaning(vector))
        for text, vector in zip(asked, vectors, strict=True)
    }


def average(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def ndcg(ranking: Sequence[int], relevant: Collection[int], k: int = 10) -> float:
    """1 when all that is relevant comes first; a find at rank r counts 1 / log2(r + 1).

    >>> ndcg([7, 3], {7}), round(ndcg([3, 7], {7}), 3)
    (1.0, 0.631)
    """
    gains = [1 / math.log2(rank + 1) for rank, it in enumerate(ranking[:k], 1) if it in relevant]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return sum(gains) / best if best else 0.0
