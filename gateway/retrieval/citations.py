"""Which passages an answer really rests on, as OpenAI's `file_citation` annotations.

A sentence is supported by a passage that holds most of its content words and all of its numbers
and names. A model's own marks, [1], are believed only where that is so; a sentence without a mark
is given the passage that supports it best. Whoever knows vectors can also ask that the two be near
in meaning. A paraphrase may go unsupported, and a denial in the same words may not be noticed.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from gateway.retrieval.arms import STOP
from gateway.retrieval.found import Hit

ENOUGH = 0.6  # of a sentence's content words
NEAR = 0.3  # cosine that 98 of 100 gold sentences reach with their passage, 14 with another
FEW = 3  # content words, below which a sentence claims nothing
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\S)[^.!?\n]+)*[.!?]*(?:\s*\[\d+\])*")
_MARK = re.compile(r"\[(\d{1,3})\]")
_WORD = re.compile(r"[^\W\d_][\w'’]*")
_NUMBER = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?")
_NAME = re.compile(r"\b\w+(?:[._]\w+)+\b|\b__\w+__\b|\b\w+(?=\(\))|(?<=[a-z,;:] )[A-Z]\w+")


class Citation(msgspec.Struct, frozen=True):
    """`index` is where in the answer's text the cited sentence ends."""

    index: int
    hit: Hit
    claim: str  # the sentence, without its marks

    def annotation(self) -> dict[str, object]:
        return {
            "type": "file_citation",
            "index": self.index,
            "file_id": self.hit.file,
            "filename": self.hit.filename,
        }


class Verdict(msgspec.Struct, frozen=True):
    """`num_unverified`: marks that named no passage, or one that does not support the sentence.
    `groundedness`: the share of the sentences that claim something which some passage supports.
    """

    citations: list[Citation]
    num_unverified: int
    groundedness: float | None  # no sentence claims anything


def verify(answer: str, given: Sequence[Hit]) -> Verdict:
    """`given` are the passages of the prompt, the first being [1]."""
    evidence = [_Evidence(hit) for hit in given]
    citations: list[Citation] = []
    supported: list[bool] = []
    num_unverified = 0
    for text, end in sentences(answer):
        marks = list(dict.fromkeys(int(it) for it in _MARK.findall(text)))
        claim = _MARK.sub(" ", text)
        scores = [it.support(claim) for it in evidence]
        if len(_content(claim)) >= FEW:
            supported.append(any(scores))
        right = [it for it in marks if 0 < it <= len(given) and scores[it - 1]]
        num_unverified += len(marks) - len(right)
        if not marks and any(scores) and len(_content(claim)) >= FEW:
            right = [scores.index(max(scores)) + 1]
        citations += [Citation(end, given[number - 1], claim) for number in right]
    share = sum(supported) / len(supported) if supported else None
    return Verdict(citations, num_unverified, share)


def without_far(verdict: Verdict, cosines: Sequence[float | None]) -> Verdict:
    """Drop the citations whose sentence and passage are not near; None: there is no telling."""
    pairs = zip(verdict.citations, cosines, strict=True)
    near = [it for it, cosine in pairs if cosine is None or cosine >= NEAR]
    num_far = len(verdict.citations) - len(near)
    return Verdict(near, verdict.num_unverified + num_far, verdict.groundedness)


def sentences(answer: str) -> Iterator[tuple[str, int]]:
    """Each sentence with the marks behind it, and where it ends."""
    for it in _SENTENCE.finditer(answer):
        if it[0].strip():
            yield it[0], it.start() + len(it[0].rstrip())


class _Evidence:
    """A passage, ready to be asked several times."""

    def __init__(self, hit: Hit) -> None:
        self._words = _content(hit.indexed)
        self._numbers = _numbers(hit.indexed)
        self._text = hit.indexed.lower()

    def support(self, claim: str) -> float:
        """The share of the claim's words that are here; 0 where that is not enough, or a number
        or name is missing."""
        words = _content(claim)
        if not words or not _numbers(claim) <= self._numbers:
            return 0.0
        if any(name.lower() not in self._text for name in _NAME.findall(claim)):
            return 0.0
        share = len(words & self._words) / len(words)
        return share if share >= ENOUGH else 0.0


def _content(text: str) -> set[str]:
    words = (it.lower().replace("’", "'") for it in _WORD.findall(text))
    return {_stem(word) for word in words if not STOP.fullmatch(word)}


def _stem(word: str) -> str:
    """Enough to let 'raises' meet 'raised'; no dictionary."""
    for ending in ("'s", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _numbers(text: str) -> set[str]:
    return {it.replace(",", "").replace("_", "").rstrip(".") for it in _NUMBER.findall(text)}
