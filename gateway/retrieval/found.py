"""What a search finds, and what of it a prompt is given. Data that the stages hand along."""

from collections import Counter
from typing import Any, Literal

import msgspec

Mode = Literal["hybrid", "words", "fallback"]
Why = Literal["threshold", "budget"]
Policy = Literal["", "answer", "say", "refuse"]


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """`score` orders the hits of one search, in [0, 1]. `relevance` is the cosine with the
    question: an upper bound of it where only words found the passage, None without an embedder.
    """

    passage: int
    file: str
    filename: str
    heading: str
    text: str
    start: int
    end: int
    attributes: dict[str, Any]
    score: float = 0.0
    relevance: float | None = None

    @property
    def indexed(self) -> str:
        return f"{self.heading}\n{self.text}"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    hits: list[Hit]
    mode: Mode  # "words": there are no vectors; "fallback": the embedder did not answer
    store: str
    snapshot: int
    epoch: int
    num_repeats: int = 0  # passages left out, as another says the same


class Dropped(msgspec.Struct, frozen=True):
    hit: Hit
    why: Why


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`given` in the order of the text: the first is [1]. `policy` is what the release does when
    nothing is relevant, and "" when something is."""

    text: str
    given: list[Hit]
    dropped: list[Dropped]
    tokens: int
    mode: Mode | Literal["missing"]  # "missing": there is no such store yet
    store: str = ""
    snapshot: int = 0
    epoch: int = 0
    num_repeats: int = 0
    policy: Policy = ""

    @property
    def header(self) -> str:
        """The value of x-glassgate-context."""
        reasons = Counter(it.why for it in self.dropped)
        parts = [
            f"passages={len(self.given)}",
            f"tokens={self.tokens}",
            *(f"dropped-{why}={count}" for why, count in sorted(reasons.items())),
            f"repeats={self.num_repeats}",
            f"search={self.mode}",
            *([f"store={self.store}@{self.snapshot}"] if self.store else []),
        ]
        return "; ".join(parts)
