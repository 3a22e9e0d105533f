"""How long should a passage be?

An embedder reads 256 pieces and gives one direction for all of them. A long passage means a bit of
everything and points nowhere; a short one has lost what it was about. So we cut at sentences, to at
most 200 pieces with the heading, let neighbours overlap so that a thought is whole in one of them,
and put title and section in front, which say what 'it' is.
"""

from functools import cache

from lessons.shelf import answerable, average, embed, passages, pieces
from lessons.story import Claim, Exercise, Result


@cache
def whole(limit: int) -> float:
    """The share of gold spans that some passage holds uncut."""
    texts = [" ".join(it.text.split()) for it in passages(limit)]
    spans = [span for it in answerable() for span in it.spans]
    return average(any(span in text for text in texts) for span in spans)


@cache
def reach(limit: int, tokens: int = 400) -> float:
    """The share of questions whose span is within the best `tokens` pieces by meaning."""
    cut = passages(limit)
    sizes = pieces().count([it.indexed for it in cut])
    scores = embed([it.text for it in answerable()]) @ embed([it.indexed for it in cut]).T
    found = []
    for question, row in zip(answerable(), scores, strict=True):
        text, left = "", tokens
        for place in (-row).argsort():
            left -= sizes[place]
            if left < 0:
                break
            text += " " + " ".join(cut[place].text.split())
        found.append(any(span in text for span in question.spans))
    return average(found)


def run() -> Result:
    return {
        "passages at 200 pieces": Claim(len(passages()), 100, 170),
        "passages at 40 pieces": Claim(len(passages(40)), 500, 1200),
        "spans held whole at 200 pieces": Claim(whole(200), 0.9, 1.0),
        "spans held whole at 40 pieces": Claim(whole(40), 0.3, 0.9),
        "found within 400 pieces, cut at 200": Claim(reach(200), 0.4, 0.8),
        "found within 400 pieces, cut at 100": Claim(reach(100), 0.4, 0.85),
    }


EXERCISES = (
    Exercise(
        "Does every passage fit, with its heading, into 200 pieces?",
        True,
        lambda: max(pieces().count([it.indexed for it in passages()])) <= 200,
    ),
    Exercise(
        "Do neighbours share text?",
        True,
        lambda: any(
            it.heading == following.heading and following.start < it.end
            for it, following in zip(passages(), passages()[1:], strict=False)
        ),
    ),
)
