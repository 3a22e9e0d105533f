"""Documents and the passages that they are cut into.

A passage is a run of whole sentences of one section, of at most so many word pieces as the embedder
reads; neighbours overlap. What is indexed is its heading (title and section path) and its text; the
text is exactly `document.text[start:end]`.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

from gateway.counting import load_tokenizer

MAX_PIECES = 200  # of heading and text; MiniLM reads 256
OVERLAP = 40  # pieces that two neighbours share at most
HEADING_CHARS = 200
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[^\s\da-z])|\n\s*\n\s*")
_LINE = re.compile(r"\n\s*")
_WORD = re.compile(r"\s+")
_LETTERS = re.compile(r"(?<=.{24})", re.DOTALL)
_ROUGH = re.compile(r"\w{1,4}|[^\w\s]")

Span = tuple[int, int]


class Section(msgspec.Struct, frozen=True):
    """`document.text[start:end]`, below the headings of `path`."""

    path: tuple[str, ...]
    start: int
    end: int


class Document(msgspec.Struct, frozen=True):
    source: str  # where it comes from: its identity in a store
    title: str
    text: str
    sections: tuple[Section, ...]


class Passage(msgspec.Struct, frozen=True):
    heading: str
    text: str
    start: int
    end: int

    @property
    def indexed(self) -> str:
        return f"{self.heading}\n{self.text}"


class Pieces:
    """Counts word pieces: by the embedder's tokenizer.json, else roughly and rather too many."""

    def __init__(self, tokenizer: str = "") -> None:
        self._path = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        if not self._path:
            return [len(_ROUGH.findall(text)) for text in texts]
        found = load_tokenizer(self._path).encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(it.ids) for it in found]

    def clip(self, text: str, limit: int) -> str:
        """The beginning of `text`, at most `limit` pieces long."""
        if not self._path:
            pieces = [it.end() for it in _ROUGH.finditer(text)]
        else:
            encoding = load_tokenizer(self._path).encode(text, add_special_tokens=False)
            pieces = [end for _, end in encoding.offsets]
        return text if len(pieces) <= limit else text[: pieces[limit - 1]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def cut(document: Document, pieces: Pieces, limit: int = MAX_PIECES) -> list[Passage]:
    """The passages of a document in its order; each of at most `limit` pieces."""
    passages = []
    for section in document.sections:
        heading = _heading(document.title, section.path)
        room = max(limit - pieces.count([heading])[0], limit // 2)
        spans = _units(document.text, (section.start, section.end), pieces, room)
        for start, end in _packed(spans, room, min(OVERLAP, room // 4)):
            passages.append(Passage(heading, document.text[start:end], start, end))
    return passages


def _heading(title: str, path: Sequence[str]) -> str:
    names = [title, *path] if path[:1] != (title,) else path
    return " › ".join(names)[:HEADING_CHARS]


def _units(text: str, span: Span, pieces: Pieces, room: int) -> list[tuple[int, int, int]]:
    """(start, end, pieces) of sentences; what is too long is cut at lines, words, and anywhere."""
    todo = [span]
    for cutter in (_SENTENCE, _LINE, _WORD, _LETTERS):
        parts: list[Span] = []
        counts = pieces.count([text[start:end] for start, end in todo])
        if max(counts, default=0) <= room and cutter is not _SENTENCE:
            break
        for (start, end), count in zip(todo, counts, strict=True):
            is_whole = count <= room and cutter is not _SENTENCE
            parts.extend([(start, end)] if is_whole else _split(text, start, end, cutter))
        todo = parts
    counts = pieces.count([text[start:end] for start, end in todo])
    return [(*span, count) for span, count in zip(todo, counts, strict=True)]


def _split(text: str, start: int, end: int, cutter: re.Pattern[str]) -> Iterator[Span]:
    """The parts between the cuts, without the white space around them."""
    cuts = [it.span() for it in cutter.finditer(text, start, end)]
    for first, last in zip(
        [start, *(it[1] for it in cuts)], [*(it[0] for it in cuts), end], strict=True
    ):
        part = text[first:last]
        if part.strip():
            yield first + len(part) - len(part.lstrip()), last - len(part) + len(part.rstrip())


def _packed(units: Sequence[tuple[int, int, int]], room: int, overlap: int) -> Iterator[Span]:
    """Greedy: as many units as fit, then back by as many as the overlap holds."""
    sums = [0, *accumulate(count for _, _, count in units)]
    first = 0
    while first < len(units):
        last = first + 1
        while last < len(units) and sums[last + 1] - sums[first] <= room:
            last += 1
        yield units[first][0], units[last - 1][1]
        if last == len(units):
            return
        again = last
        while again - 1 > first and sums[last] - sums[again - 1] <= overlap:
            again -= 1
        first = again
