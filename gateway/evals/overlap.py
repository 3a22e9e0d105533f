"""How far an answer says the same words as a reference: each measure by its published definition.

All are in [0, 1], 1 = the same. They see words, not meaning.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_OF_NUMBER = re.compile(r"(?<=\d)\.(?=\d)|(?<!\w)-(?=\d)")  # a point, a sign
_ROUGE = re.compile(r"[^a-z0-9]+")
# The tokenizer "13a" of mteval, which sacrebleu reports.
_13A = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
MAX_N = 4


def normal(text: str) -> str:
    """Without case, punctuation, articles and extra blanks, as SQuAD compares answers; but a number
    keeps its point and its sign.

    >>> normal("The  Eiffel-Tower.")
    'eiffeltower'
    """
    return _plain(_ARTICLE.sub(" ", _bare(text)))


def both_normal(answer: str, reference: str) -> tuple[str, str]:
    """`normal`, or only as far as it leaves anything of the reference, which may be "A" or "-"."""
    for form in (normal, _bare, _plain):
        if theirs := form(reference):
            return form(answer), theirs
    return _plain(answer), ""


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def _bare(text: str) -> str:
    """Without punctuation. Long dashes part words, as blanks do."""
    text = _plain(text)
    kept = {match.start() for match in _OF_NUMBER.finditer(text)}
    return _plain("".join(c if i in kept else _unmarked(c) for i, c in enumerate(text)))


def _unmarked(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Pd" and character != "-":
        return " "
    return "" if kind.startswith("P") or character in string.punctuation else character


def token_f1(answer: str, reference: str) -> float:
    """The words in common (arXiv:1606.05250, section 6.1)."""
    ours, theirs = (it.split() for it in both_normal(answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004), without stemming."""
    ours, theirs = (_ROUGE.sub(" ", it.lower()).split() for it in (answer, reference))
    return _f1(_common_subsequence(ours, theirs), len(ours), len(theirs))


def bleu(answer: str, reference: str) -> float:
    """Sentence BLEU (Papineni, 2002) as sacrebleu has it: orders that the answer is long enough
    for, and a count of zero taken as 1/2, 1/4, … (its smoothing "exp")."""
    ours, theirs = _tokens_13a(answer), _tokens_13a(reference)
    logs, halving = [], 1.0
    for n in range(1, min(MAX_N, len(ours)) + 1):
        grams = _grams(ours, n)
        hits = float((grams & _grams(theirs, n)).total())
        if n == 1 and hits == 0:
            return 0.0
        if hits == 0:
            halving /= 2
            hits = halving
        logs.append(math.log(hits / grams.total()))
    if not logs or not theirs:
        return 0.0
    return math.exp(min(0.0, 1 - len(theirs) / len(ours)) + sum(logs) / len(logs))


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0


def _common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _tokens_13a(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text.strip()} "
    for pattern, spaced in _13A:
        text = pattern.sub(spaced, text)
    return text.split()
