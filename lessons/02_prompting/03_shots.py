"""Do examples teach a task, or only the form of its answer?

Forty short texts, half of them glad, are judged by the prompts that are shipped. Three numbers tell
apart what is often one: how much probability lies on the two allowed words (form), how often the
likelier one is right (accuracy, with Wilson's interval for n = 40), and how often a glad text gets
higher odds than a sad one (AUC: what the network knows, wherever the threshold is). For a model of
135 million parameters: it knows, it learns the form, and whether it is right hangs on the order of
the examples (arXiv:2104.08786). That order is no detail is the lesson.
"""

from collections.abc import Sequence
from functools import cache
from math import log
from pathlib import Path

import msgspec
import numpy as np

from gateway.evals.statistics import wilson
from gateway.prompt_file import Prompt, load_folder
from gateway.prompts import Given, compose
from lessons.chat import chat_text, checkpoint, next_logits, renderer
from lessons.story import Claim, Exercise, Result
from model.network.functional import softmax

FOLDER = Path(__file__).parents[2] / "ops" / "prompts"
GLAD = (
    "The staff remembered my name.", "I slept like a child.", "Best bread in town.",
    "The film made us laugh all evening.", "It arrived a day early.",
    "My garden has never looked so good.", "She sang beautifully.",
    "The new chair is very comfortable.", "We will certainly come back.",
    "The view took our breath away.", "He explained it with great patience.",
    "The battery lasts for days.", "Everything worked at the first try.",
    "A warm and honest book.", "The children loved it.", "The room was clean and bright.",
    "I would buy it again.", "The doctor took her time and was kind.",
    "Such a friendly little shop.", "The soup was delicious.",
)  # fmt: skip
SAD = (
    "The waiter ignored us for an hour.", "The bed was hard and the room smelled.",
    "My order never came.", "I fell asleep after ten minutes of the film.",
    "It broke on the second day.", "Nobody answered the phone.",
    "The singer was out of tune all night.", "The chair hurts my back.",
    "We will never go there again.", "The window looked onto a wall.",
    "He shouted at everybody.", "The battery is empty by noon.",
    "Nothing worked, whatever I tried.", "A dull and careless book.",
    "The children cried and wanted to go home.", "There was dirt in every corner.",
    "I want my money back.", "The doctor was rude and in a hurry.", "They charged us twice.",
    "The fish was cold and tasted of soap.",
)  # fmt: skip
ZERO, GLAD_LAST, SAD_LAST = (), (0, 1, 2, 3), (1, 0, 3, 2)
Order = tuple[int, ...]


class Judged(msgspec.Struct, frozen=True):
    form: float  # probability on the two words, mean
    accuracy: float
    auc: float
    glad: float  # share that is called glad


@cache
def prompt(order: Order) -> Prompt:
    """The shipped prompt with its examples in this order."""
    shipped = load_folder(FOLDER)["sentiment@2"]
    examples = tuple(shipped.front.examples[i] for i in order)
    front = msgspec.structs.replace(shipped.front, examples=examples)
    return msgspec.structs.replace(shipped, front=front)


def words(*spellings: str) -> list[int]:
    return [checkpoint().tokenizer.encode(it)[0] for it in spellings]


@cache
def odds(order: Order, text: str) -> tuple[float, float]:
    """The log odds that the text is called glad, and the probability on both words."""
    messages = compose(prompt(order), Given([], {"text": text}), renderer())
    p = softmax(next_logits(chat_text(messages)).astype(np.float64))
    glad, sad = p[words("positive", "Positive")].sum(), p[words("negative", "Negative")].sum()
    return log(glad / sad), float(glad + sad)


def judged(order: Order) -> Judged:
    glad, sad = ([odds(order, text) for text in texts] for texts in (GLAD, SAD))
    hits = sum(it > 0 for it, _ in glad) + sum(it <= 0 for it, _ in sad)
    called = sum(it > 0 for it, _ in glad + sad)
    above = [a > b for a, _ in glad for b, _ in sad]
    n = len(glad) + len(sad)
    return Judged(float(np.mean([p for _, p in glad + sad])), hits / n, np.mean(above), called / n)


def run() -> Result:
    zero, glad_last, sad_last = map(judged, (ZERO, GLAD_LAST, SAD_LAST))
    return {
        "form, zero-shot": Claim(zero.form, 0.15, 0.6),
        "form, four examples": Claim(glad_last.form, 0.9, 1),
        "what it knows (AUC), zero-shot": Claim(zero.auc, 0.8, 1),
        "what it knows (AUC), four examples": Claim(glad_last.auc, 0.75, 1),
        "accuracy, zero-shot": Claim(zero.accuracy, *wilson(20, 40)),
        "accuracy, four examples, a glad one last": Claim(glad_last.accuracy, *wilson(30, 40)),
        "accuracy, the same four, a sad one last": Claim(sad_last.accuracy, *wilson(20, 40)),
        "share called glad, zero-shot": Claim(zero.glad, 0.9, 1),
    }


def middle(order: Order, texts: Sequence[str]) -> float:
    return float(np.median([odds(order, text)[0] for text in texts]))


EXERCISES = (
    Exercise(
        "Zero-shot accuracy is a coin's. Are the odds of glad texts higher all the same?",
        True,
        lambda: middle(ZERO, GLAD) > middle(ZERO, SAD),
    ),
    Exercise(
        "Which word does this model say of every text when it was shown nothing?",
        "positive",
        lambda: "positive" if judged(ZERO).glad == 1 else "either",
    ),
)
