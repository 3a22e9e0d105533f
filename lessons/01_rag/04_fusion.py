"""Two judges who fail on different questions: how to listen to both?

Words and meanings have scores of different kinds, so they cannot simply be added. Reciprocal rank
fusion looks only at the places: 1 / (60 + place), summed. Min-max stretches each list's scores to
[0, 1] and takes the mean, so it also hears how sure a judge is. Both beat either judge alone on
questions of all kinds; on one kind alone the better judge may still win.
"""

from gateway.retrieval.fusion import min_max, reciprocal_rank
from lessons.shelf import answerable, average, ndcg, rankings, shelf
from lessons.story import Claim, Exercise, Result


def by_hand(first: list[str], second: list[str], k: int = 60) -> list[str]:
    """Reciprocal rank fusion of two rankings, the best first.

    >>> by_hand(["a", "b", "c"], ["b", "d"])
    ['b', 'a', 'd', 'c']
    """
    scores: dict[str, float] = {}
    for ranking in (first, second):
        for place, name in enumerate(ranking, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (k + place)
    return sorted(scores, key=lambda name: -scores[name])


def quality(method: str, kind: str = "") -> float:
    """Mean nDCG@10 of "words", "meaning", "rrf" or "min-max"."""
    total = []
    for question in answerable(kind):
        words, meaning = rankings()[question.text]
        found = {
            "words": words, "meaning": meaning, "rrf": reciprocal_rank([words, meaning]),
            "min-max": min_max([words, meaning]),
        }[method]  # fmt: skip
        total.append(ndcg(list(found), shelf().relevant(question)))
    return average(total)


def run() -> Result:
    better = max(quality("words"), quality("meaning"))
    return {
        "nDCG@10 by words, all kinds": Claim(quality("words"), 0.5, 0.8),
        "nDCG@10 by meaning, all kinds": Claim(quality("meaning"), 0.5, 0.8),
        "gain of rrf over the better one": Claim(quality("rrf") - better, -0.02, 0.12),
        "gain of min-max over the better one": Claim(quality("min-max") - better, -0.02, 0.12),
        "gain of min-max over meaning, other words": Claim(
            quality("min-max", "paraphrase") - quality("meaning", "paraphrase"), -0.12, 0.08
        ),
    }


EXERCISES = (
    Exercise(
        "First in one list and absent from the other, or third in both: which wins by rrf?",
        "third in both",
        lambda: "third in both" if 2 / 63 > 1 / 61 else "first in one",
    ),
    Exercise(
        "Does the gateway's rrf order as the lesson's?",
        True,
        lambda: (
            by_hand(["a", "b"], ["b", "c"])
            == ["abc"[it] for it in reciprocal_rank([{0: 2.0, 1: 1.0}, {1: 2.0, 2: 1.0}])]
        ),
    ),
)
