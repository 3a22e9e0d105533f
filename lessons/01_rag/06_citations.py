"""How do we know that an answer rests on what was given?

A model that writes [2] has written two brackets and a digit. So each mark is checked: was there a
second passage, does it hold the sentence's words, all of its numbers and all of its names? What
fails is dropped and counted. The share of sentences that some passage supports is groundedness. It
compares words: it catches invented numbers and names, and can be fooled by a 'not'. Vectors are
asked last, whether sentence and passage are near at all; they cannot see the 'not' either.
"""

import re

from gateway.retrieval.citations import verify
from gateway.retrieval.found import Hit
from gateway.retrieval.fusion import min_max
from lessons.shelf import answerable, average, rankings, shelf
from lessons.story import Claim, Exercise, Result


def given(question: str) -> list[Hit]:
    return shelf().hits(list(min_max(rankings()[question]))[:6])


def spans_found() -> list[tuple[str, list[Hit]]]:
    """Gold sentences whose passage was found, with what was found."""
    pairs = [(span, given(it.text)) for it in answerable("answerable") for span in it.spans]
    return [
        (span, hits)
        for span, hits in pairs
        if any(span in " ".join(hit.text.split()) for hit in hits)
    ]


def believed(change: str) -> float:
    """The share of gold sentences that are cited after a `change`: "", "number", "name", "not"."""
    results = []
    for span, hits in spans_found():
        text = re.sub(r"[*]", "", span)
        if change == "number":
            text += " in 1847"
        elif change == "name":
            text += ", as in foo.bar_baz"
        elif change == "not":
            text = "It is not so that " + text
        results.append(bool(verify(text + ".", hits).citations))
    return average(results)


def run() -> Result:
    return {
        "true sentences that are cited": Claim(believed(""), 0.9, 1.0),
        "with an invented number": Claim(believed("number"), 0, 0.02),
        "with an invented name": Claim(believed("name"), 0, 0.02),
        "denied with the same words (fooled)": Claim(believed("not"), 0.8, 1.0),
    }


EXERCISES = (
    Exercise(
        "Six passages were given and the answer says [7]. How many marks are unverified?",
        1,
        lambda: verify("The loop ends there [7].", given(answerable()[0].text)).num_unverified,
    ),
    Exercise(
        "Is an answer that only greets grounded, ungrounded, or neither?",
        None,
        lambda: verify("Hello!", given(answerable()[0].text)).groundedness,
    ),
)
