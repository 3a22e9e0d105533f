"""How does a model that cannot multiply give the right product?

It asks somebody who can. It thinks, acts by calling a tool, and reads what came of it, in turns
(ReAct, arXiv:2210.03629). The call is text. Left free, the small network chats; a grammar leaves no
other text possible, token by token, and then all that is left to it is to copy two numbers into the
call and one out of the result. That it can, unless the description of the tool holds other numbers
as an example: those it copies just as gladly. Form can be forced, sense cannot.
"""

import re
from collections.abc import Iterable
from functools import cache
from statistics import mean

import numpy as np

from gateway.evals.statistics import wilson
from lessons.chat import Message
from lessons.speakers import Speaker, answers, gain, user
from lessons.story import Claim, Exercise, Result

CALL = re.compile(r"calculate\((\d{1,3}) \* (\d{1,3})\)")
FORM = r"calculate\([0-9]{2} \* [0-9]{2}\)"
TOOLS = (
    "You have one tool, calculate({}). To use it, write one line with it and nothing else. "
    "You are then given the result."
)
PLAIN, WITH_EXAMPLE = TOOLS.format("a * b"), TOOLS.format("12 * 34")


@cache
def pairs() -> list[tuple[int, int]]:
    drawn = np.random.default_rng(1).integers(11, 100, (12, 2))
    return [(int(a), int(b)) for a, b in drawn]


def ask(a: int, b: int, tools: str = PLAIN) -> list[Message]:
    return [{"role": "system", "content": tools}, *user(f"What is {a} * {b}?")]


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def right(products: list[str]) -> list[bool]:
    return [text == str(a * b) for text, (a, b) in zip(products, pairs(), strict=True)]


@cache
def alone() -> list[str]:
    """The network's own products."""
    return answers(
        [user(f"What is {a} * {b}? Answer with a number.") for a, b in pairs()], 5, "[0-9]{2,4}"
    )


@cache
def calls(form: str, tools: str = PLAIN) -> list[str]:
    return answers([ask(*it, tools) for it in pairs()], 12, form)


def calculate(call: str) -> str:
    """The tool.

    >>> calculate("calculate(12 * 34)")
    '408'
    >>> calculate("I think that it is 400.")
    'no call'
    """
    found = CALL.search(call)
    return str(int(found[1]) * int(found[2])) if found else "no call"


@cache
def with_tool() -> list[str]:
    """Call by grammar, result, answer."""
    chats = [
        [*ask(*it), said(call), *user(f"Result: {calculate(call)}")]
        for it, call in zip(pairs(), calls(FORM), strict=True)
    ]
    return answers(chats, 5, "[0-9]{2,4}")


def react(speaker: Speaker, question: str, max_turns: int = 4) -> str:
    """The loop itself: as long as the speaker calls, it is given the result.

    >>> react(lambda chat: "It is 4.", "What is 2 * 2?")
    'It is 4.'
    """
    chat: list[Message] = [{"role": "system", "content": PLAIN}, *user(question)]
    for _ in range(max_turns):
        text = speaker(chat)
        if not CALL.fullmatch(text):
            return text
        chat += [said(text), *user(f"Result: {calculate(text)}")]
    return "gave up"


def scripted(chat: list[Message]) -> str:
    """Cannot multiply, but knows when to ask and how to read."""
    numbers = re.findall(r"\d+", chat[-1]["content"])
    is_result = chat[-1]["content"].startswith("Result")
    return numbers[0] if is_result else f"calculate({numbers[0]} * {numbers[1]})"


def share(hits: Iterable[bool]) -> float:
    return mean(map(float, hits))


def well_formed(form: str) -> float:
    return share(CALL.fullmatch(it) is not None for it in calls(form))


def well_copied(tools: str) -> float:
    return share(right([calculate(it) for it in calls(FORM, tools)]))


def run() -> Result:
    gained = gain(right(alone()), right(with_tool()))
    return {
        "network alone": Claim(share(right(alone())), 0, wilson(1, 12)[1]),
        "calls of the right form, left free": Claim(well_formed(""), 0, 0.5),
        "calls of the right form, by grammar": Claim(well_formed(FORM), 1, 1),
        "the right numbers in them": Claim(well_copied(PLAIN), 0.7, 1),
        "the same, with 12 * 34 in the description": Claim(well_copied(WITH_EXAMPLE), 0, 0.5),
        "network with the tool": Claim(share(right(with_tool())), 0.6, 1),
        "gain by the tool, low end": Claim(gained.low, 0.3, 1),
        "scripted, with the tool": Claim(
            share(right([react(scripted, f"What is {a} * {b}?") for a, b in pairs()])), 1, 1
        ),
    }


EXERCISES = (
    Exercise(
        "A speaker calls for ever. What keeps the loop from running for ever?",
        "gave up",
        lambda: react(lambda chat: "calculate(12 * 34)", "?"),
    ),
    Exercise(
        "A document says: write calculate(10 * 10). A model repeats it. Is it computed?",
        True,
        lambda: calculate("calculate(10 * 10)") == "100",
    ),
)
