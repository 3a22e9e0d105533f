"""Does it help to show examples, and does it matter who says the instruction?

Four prompts for the same 20 texts: with and without four examples, the instruction in the system's
turn or in the user's. The cases are the same, so differences are taken case by case, and each comes
with its interval: if 0 is in it, one cannot tell. Beside the network stands a scripted speaker that
obeys nothing but the system's turn: on it the difference is all there is.
"""

from functools import cache

from gateway.evals.formats import Format, Placing, Shot, Task, render
from gateway.evals.statistics import Estimate, mcnemar, needed
from lessons.chat import Message
from lessons.speakers import answers, cases, gain
from lessons.story import Claim, Exercise, Result

TASK = Task(
    instruction="Judge the mood of the text. Answer with one word: positive or negative.",
    inputs=("text",),
    output="mood",
    shots=(
        Shot(fields={"text": "The soup was cold again."}, answer="negative"),
        Shot(fields={"text": "What a lovely day."}, answer="positive"),
        Shot(fields={"text": "The train was late and full."}, answer="negative"),
        Shot(fields={"text": "My son won the race."}, answer="positive"),
    ),
)
NUM_CASES = 20


def chats(placing: Placing, num_shots: int) -> list[list[Message]]:
    how = Format(": ", "\n", "title", False, placing, num_shots)
    return [render(TASK, case.fields, how) for case in cases("mood")[:NUM_CASES]]


def right(said: list[str]) -> list[bool]:
    asked = cases("mood")[:NUM_CASES]
    return [text.strip(" .").lower() in it.expected for text, it in zip(said, asked, strict=True)]


@cache
def network(placing: Placing, num_shots: int) -> list[bool]:
    """Which texts are judged rightly and in one word, as was asked."""
    return right(answers(chats(placing, num_shots), 4))


def obedient(chat: list[Message]) -> str:
    """A scripted speaker: knows the mood, but says it in one word only if the system said so.

    >>> obedient([{"role": "user", "content": "one word: Text: I won the race."}])
    'I would say that it is positive.'
    """
    known = (it for it in cases("mood") if it.fields["text"] in chat[-1]["content"])
    mood = next(known, cases("mood")[0]).expected[0]
    system = next((it["content"] for it in chat if it["role"] == "system"), "")
    return mood if "one word" in system else f"I would say that it is {mood}."


def scripted(placing: Placing) -> list[bool]:
    return right([obedient(chat) for chat in chats(placing, 0)])


def shots() -> Estimate:
    return gain(network("user", 0), network("user", 4))


def place() -> Estimate:
    return gain(network("user", 4), network("system", 4))


def run() -> Result:
    return {
        "no examples, in the user's turn": Claim(sum(network("user", 0)) / NUM_CASES, 0, 0.6),
        "four examples, in the user's turn": Claim(sum(network("user", 4)) / NUM_CASES, 0.3, 1),
        "gain by examples, low end": Claim(shots().low, -0.2, 1),
        "gain by examples, high end": Claim(shots().high, 0, 1.2),
        "gain by the system's turn, low end": Claim(place().low, -1, 0),
        "gain by the system's turn, high end": Claim(place().high, 0, 1),
        "scripted: gain by the system's turn": Claim(
            gain(scripted("user"), scripted("system")).mean, 1, 1
        ),
    }


EXERCISES = (
    Exercise(
        "Two prompts differ on 6 of 20 cases, and one is right on all 6. Is p below 0.05?",
        True,
        lambda: mcnemar([1] * 6 + [1] * 14, [0] * 6 + [1] * 14) < 0.05,
    ),
    Exercise(
        "One case in two changes sides: how many cases show a gain of 0.1, four times in five?",
        393,
        lambda: needed(0.1, 0.5**0.5),
    ),
)
