"""What rows say together, before anybody trains on them: repeats, leaks, personal data, sources.

Near repeats are found by MinHash (Broder 1997) in bands and then compared in full, so that chance
can miss one but never invent one. Leaves out files (`rows`) and tokens (`examples`).
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from model.training.operations import Array
from model.training.rows import Problem, Row

WORD = re.compile(r"\w+|[^\w\s.,;:!?'\"()‘’“”]")
NEAR = 0.8  # Jaccard similarity of the sets of three-word sequences from which two rows are near
BANDS, BAND_ROWS = 16, 4  # a pair at 0.8 is missed once in 4,000 times
FACTORS = np.random.default_rng(0).integers(1, 2**63, (BANDS * BAND_ROWS, 1), np.uint64) | 1

BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
PERSONAL = {
    "an e-mail address": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    "a telephone number": re.compile(r"(?<![\w.])(?:\+\d{1,3}[ -]?|\(\d{3}\) ?)\d[\d -]{5,12}\d\b"),
    "an IP address": re.compile(rf"\b(?:{BYTE}\.){{3}}{BYTE}\b"),
    "a bank account": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "a key": re.compile(r"\b(?:sk-[\w-]{16,}|AKIA[A-Z0-9]{16}|gh[pousr]_\w{30,})"),
}  # fmt: skip
CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")


class Report(NamedTuple):
    """Findings by kind, in the order in which they are shown; each names its line."""

    findings: dict[str, list[Problem]]
    sources: Counter[str]

    @property
    def unfit_lines(self) -> set[int]:
        """Lines that a cleaned file leaves out."""
        return {problem.line for found in self.findings.values() for problem in found}


def audit(rows: Sequence[Row], problems: Sequence[Problem], test: Sequence[Row] = ()) -> Report:
    """All that is wrong with `rows`; `problems` were found by reading, `test` must stay unseen."""
    findings = {
        "cannot be read": list(problems),
        "repeat": list(_repeats(rows)),
        "leak into the test": list(_leaks(rows, test)),
        "personal data": [
            Problem(row.line, f"holds {kind}")
            for row in rows
            for kind in personal(f"{row.text}\n{row.rejected or ''}")
        ],
    }
    return Report(findings, Counter(row.source for row in rows))


def personal(text: str) -> list[str]:
    """Kinds of personal data that `text` seems to hold."""
    found = [kind for kind, pattern in PERSONAL.items() if pattern.search(text)]
    if any(_is_card(match) for match in CARD.findall(text)):
        found.append("a payment card")
    return found


def _is_card(text: str) -> bool:
    """The checksum of payment cards (Luhn, ISO/IEC 7812)."""
    digits = [int(c) for c in reversed(text) if c.isdigit()]
    doubled = [d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
    return sum(doubled) % 10 == 0


def _repeats(rows: Sequence[Row]) -> Iterator[Problem]:
    index = Index()
    for row in rows:
        text = f"{row.text}\n{row.rejected or ''}"
        if hit := index.find(text):
            how = "repeats" if hit[1] == 1 else f"is {hit[1]:.0%} like"
            yield Problem(row.line, f"{how} line {hit[0]}")
        index.add(row.line, text)


def _leaks(rows: Sequence[Row], test: Sequence[Row]) -> Iterator[Problem]:
    """By the questions alone: who knows them has seen the test, whatever the answer was."""
    index = Index()
    for row in test:
        index.add(row.line, row.prompt)
    for row in rows:
        if hit := index.find(row.prompt):
            yield Problem(
                row.line, f"its question is {hit[1]:.0%} that of line {hit[0]} of the test"
            )


class Index:
    """Texts that can be found again by one that is like them."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, bytes], int] = {}  # to the first text that fell into it
        self._shingles: dict[int, frozenset[int]] = {}

    def add(self, line: int, text: str) -> None:
        self._shingles[line] = pieces = shingles(text)
        for key in _bands(pieces):
            self._buckets.setdefault(key, line)

    def find(self, text: str) -> tuple[int, float] | None:
        """The line of the text that is most like this one, and how much; None if none is near."""
        pieces = shingles(text)
        lines = {self._buckets[key] for key in _bands(pieces) if key in self._buckets}
        like = ((line, _jaccard(pieces, self._shingles[line])) for line in sorted(lines))
        best = max(like, key=lambda hit: hit[1], default=(0, 0.0))
        return best if best[1] >= NEAR else None


def shingles(text: str) -> frozenset[int]:
    """The three-word sequences of `text` as numbers, case and punctuation aside. A sign that may
    be what matters, as in 2 - 3, is a word."""
    words = WORD.findall(text.casefold())
    triples = (words[i : i + 3] for i in range(max(1, len(words) - 2)))
    return frozenset(zlib.crc32(" ".join(triple).encode()) for triple in triples)


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    return len(a & b) / len(a | b)


def _bands(pieces: frozenset[int]) -> list[tuple[int, bytes]]:
    hashes: Array = np.fromiter(pieces, np.uint64, len(pieces)) + np.uint64(1)
    least = (FACTORS * hashes >> np.uint64(32)).min(axis=1).reshape(BANDS, BAND_ROWS)
    return [(band, row.tobytes()) for band, row in enumerate(least)]


def split(rows: Iterable[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Train and test, about `share` in the test; rows of one source stay together, if there are
    several. Neither is empty, unless there is one row."""
    rows = list(rows)
    has_sources = len({row.source for row in rows}) > 1
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        name = row.source if has_sources else ""
        by_source.setdefault(name or f"line {row.line}", []).append(row)
    names = sorted(by_source)
    Random(seed).shuffle(names)  # noqa: S311 - a draw to be repeated, no secret
    missing, taken = share * len(rows), set[str]()
    for name in names:
        is_nearer = abs(missing - len(by_source[name])) < abs(missing)
        if is_nearer and len(taken) + 1 < len(names):
            missing -= len(by_source[name])
            taken.add(name)
    if not taken and len(names) > 1:
        taken = {min(names, key=lambda it: len(by_source[it]))}
    parts: tuple[list[Row], list[Row]] = [], []
    for name in names:
        parts[name in taken].extend(by_source[name])
    return parts
