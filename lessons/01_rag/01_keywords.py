"""Why do keywords work so well, and where do they fail?

BM25 asks of each word of the question: how rare is it (a rare word tells passages apart), how often
does the passage say it (with less and less effect), and how long is the passage (a long one says
everything once). That is fifteen lines, and they are all that a search engine's ranking is made of.
It is hard to beat while people use the text's own words. When they use others it sees nothing.
"""

import math
import re
from collections import Counter

from lessons.shelf import answerable, average, ndcg, rankings, shelf
from lessons.story import Claim, Exercise, Result

K1, B = 1.2, 0.75


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def bm25(question: str, texts: list[str]) -> list[float]:
    """A score for each text (Robertson & Zaragoza 2009).

    >>> scores = bm25("red fox", ["a red fox", "a red barn", "the sea"])
    >>> scores[0] > scores[1] > scores[2] == 0
    True
    """
    counts = [Counter(words(text)) for text in texts]
    usual = average(it.total() for it in counts)
    scores = [0.0] * len(texts)
    for word in set(words(question)):
        holding = sum(word in it for it in counts)
        rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for place, count in enumerate(counts):
            length = 1 - B + B * count.total() / usual
            scores[place] += rarity * count[word] * (K1 + 1) / (count[word] + K1 * length)
    return scores


def ours(question: str) -> list[int]:
    """The shelf's passages by our fifteen lines, the best first."""
    texts = shelf().texts()
    scores = dict(zip(texts, bm25(question, list(texts.values())), strict=True))
    return sorted(scores, key=lambda it: -scores[it])


def quality(kind: str) -> float:
    """Mean nDCG@10 of the gateway's keyword arm (SQLite's FTS5) on questions of this kind."""
    return average(
        ndcg(list(rankings()[it.text][0]), shelf().relevant(it)) for it in answerable(kind)
    )


def shared(kind: str) -> float:
    """The share of a question's words that the text of its gold span also uses."""
    return average(
        len(set(words(it.text)) & set(words(" ".join(it.spans)))) / len(set(words(it.text)))
        for it in answerable(kind)
    )


def run() -> Result:
    by_hand = average(ndcg(ours(it.text), shelf().relevant(it)) for it in answerable("answerable"))
    return {
        "words shared with the answer, same words": Claim(shared("answerable"), 0.35, 0.7),
        "words shared with the answer, other words": Claim(shared("paraphrase"), 0.05, 0.3),
        "nDCG@10 of fifteen lines, same words": Claim(by_hand, 0.7, 1.0),
        "nDCG@10 of FTS5, same words": Claim(quality("answerable"), 0.85, 1.0),
        "nDCG@10 of FTS5, other words": Claim(quality("paraphrase"), 0.1, 0.45),
    }


EXERCISES = (
    Exercise(
        "A word that is in every passage: does it still move the ranking by much?",
        True,
        lambda: max(bm25("the", ["the sea"] * 9)) < 0.1,
    ),
    Exercise(
        "Twice the word: is it twice the score?",
        False,
        lambda: bm25("fox", ["fox fox", "x y"])[0] >= 2 * bm25("fox", ["fox x", "x y"])[0],
    ),
    Exercise(
        "'Hide the original error when I throw a new one' is answered under 'raise'."
        " Is the passage among the first three by words?",
        False,
        lambda: bool(
            set(list(rankings()["Hide the original error when I throw a new one"][0])[:3])
            & shelf().relevant(
                next(it for it in answerable("paraphrase") if it.text.startswith("Hide the"))
            )
        ),
    ),
)
