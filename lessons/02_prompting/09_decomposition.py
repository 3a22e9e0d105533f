"""Two easy questions instead of a hard one: when does that help?

"On which continent is the country whose capital is Oslo?" has a question inside. Who knows both
facts may still fail to join them in one step (arXiv:2210.03350). Asked one after the other, with
the first answer written into the second question, each is a plain look-up. But now the first error
spoils the second answer: two steps that are right nine times in ten are both right eight times.
"""

import re
from functools import cache

from gateway.evals.overlap import normal
from gateway.evals.statistics import Estimate
from lessons.speakers import answers, gain, user
from lessons.story import Claim, Exercise, Result

CAPITALS = {
    "Oslo": ("Norway", "Europe"), "Paris": ("France", "Europe"), "Rome": ("Italy", "Europe"),
    "Madrid": ("Spain", "Europe"), "Tokyo": ("Japan", "Asia"), "Beijing": ("China", "Asia"),
    "Hanoi": ("Vietnam", "Asia"), "Bangkok": ("Thailand", "Asia"), "Cairo": ("Egypt", "Africa"),
    "Nairobi": ("Kenya", "Africa"), "Accra": ("Ghana", "Africa"), "Rabat": ("Morocco", "Africa"),
}  # fmt: skip
CONTINENTS = "Europe|Asia|Africa"
WHOLE = "On which continent is the country whose capital is {}? Answer with one word."
FIRST = "Which country has the capital {}? Answer with the name of the country."
SECOND = "On which continent is {}? Answer with one word."


@cache
def whole() -> list[str]:
    return answers([user(WHOLE.format(it)) for it in CAPITALS], 3, CONTINENTS)


@cache
def countries() -> list[str]:
    """What the network says to the first question, cut down to a name that it holds."""
    said = answers([user(FIRST.format(it)) for it in CAPITALS], 16)
    return [named(text) for text in said]


def named(text: str) -> str:
    """
    >>> named("The capital of Norway is Oslo.")
    'Norway'
    """
    words = f" {normal(text)} "
    known = (country for country, _ in CAPITALS.values() if f" {country.lower()} " in words)
    return next(known, text)


@cache
def in_two_steps() -> list[str]:
    return answers([user(SECOND.format(it)) for it in countries()], 3, CONTINENTS)


def right(said: list[str]) -> list[bool]:
    return [text == it[1] for text, it in zip(said, CAPITALS.values(), strict=True)]


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def single_hop(question: str) -> str:
    """A scripted speaker who looks up one fact and takes no second step.

    >>> single_hop("On which continent is Norway?")
    'Europe'
    """
    for capital, (country, continent) in CAPITALS.items():
        if re.search(rf"\b{country}\b", question):
            return continent
        if capital in question:
            return country
    return "I do not know."


def network() -> Estimate:
    return gain(right(whole()), right(in_two_steps()))


def run() -> Result:
    known = [it[0] == said for it, said in zip(CAPITALS.values(), countries(), strict=True)]
    stepwise = [single_hop(SECOND.format(single_hop(FIRST.format(it)))) for it in CAPITALS]
    return {
        "network, in one": Claim(share(right(whole())), 0.2, 1),
        "network, the first step alone": Claim(share(known), 0.3, 1),
        "network, in two steps": Claim(share(right(in_two_steps())), 0.2, 1),
        "network, gain, low end": Claim(network().low, -1, 0.3),
        "network, gain, high end": Claim(network().high, -0.3, 1),
        "scripted, in one": Claim(
            share(right([single_hop(WHOLE.format(it)) for it in CAPITALS])), 0, 0
        ),
        "scripted, in two steps": Claim(share(right(stepwise)), 1, 1),
    }


EXERCISES = (
    Exercise(
        "Three steps, each right nine times in ten, errors independent: how often is all right?",
        0.729,
        lambda: round(0.9**3, 3),
    ),
    Exercise(
        "What does the scripted speaker say to the whole question on Oslo?",
        "Norway",
        lambda: single_hop(WHOLE.format("Oslo")),
    ),
)
