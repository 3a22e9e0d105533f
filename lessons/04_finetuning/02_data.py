"""What is in the file decides: which rows may stay, and which of their tokens count?

A training file is read line by line, and whatever is wrong gets its line and a reason. Then rows
are held against one another: a row that stands there twice is learned twice as hard, and a test
question among them makes the test worthless. At last the tokens: the loss is about the answers
alone, with the token that ends them; a question is read and never imitated.
"""

import json
import tempfile
from functools import cache
from pathlib import Path

from lessons.classroom import tiny
from lessons.story import Claim, Exercise, Result
from model.protocol.templates import Renderer
from model.training.audit import NEAR, Report, audit, shingles
from model.training.examples import Encoder, Example
from model.training.rows import Row, read_rows

QUESTION = "Where does the river rise that runs past nine old mills on its slow way to the sea"
LINES = (
    {"instruction": QUESTION, "output": "In the hills."},
    {"instruction": f"{QUESTION}?", "output": "In the hills!"},
    {"messages": [{"role": "user", "content": "Hi"}]},
    {"instruction": "Write to whom?", "output": "To ada@example.org."},
    {"prompt": "Hi", "chosen": "Hello!", "rejected": "Hello!"},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
    "no JSON at all",
)
TEST = ({"instruction": "Hi", "output": "Good day."},)


def rows(lines: tuple[object, ...]) -> tuple[list[Row], list[tuple[int, str]]]:
    """What reading gives: rows, and (line, reason) of the rest."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for line in lines:
            print(line if isinstance(line, str) else json.dumps(line), file=file)
        file.flush()
        found, problems = read_rows(Path(file.name))
    return found, [tuple(it) for it in problems]


@cache
def report() -> Report:
    return audit(rows(LINES)[0], [], rows(TEST)[0])


def lines_of(kind: str) -> list[int]:
    """
    >>> lines_of("repeat"), lines_of("personal data"), lines_of("leak into the test")
    ([2], [4], [6])
    """
    return [problem.line for problem in report().findings[kind]]


def likeness(a: str, b: str) -> float:
    """The Jaccard similarity of two texts' three-word sequences.

    >>> likeness("one two three four", "one two three four!"), NEAR
    (1.0, 0.8)
    """
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@cache
def example() -> Example:
    with Renderer() as renderer:
        return Encoder(tiny(), renderer, 100).example(rows(LINES)[0][0].messages)


def counted() -> str:
    """The text that the loss is about.

    >>> counted()
    'In the hills.<|im_end|>'
    """
    ids = [i for i, weight in zip(*example(), strict=True) if weight]
    return tiny().tokenizer.decode(ids, skip_special_tokens=False)


def run() -> Result:
    weights = example().weights
    return {
        "lines that cannot be read": Claim(len(rows(LINES)[1]), 3, 3),
        "lines that repeat another": Claim(len(lines_of("repeat")), 1, 1),
        "lines that a test asks": Claim(len(lines_of("leak into the test")), 1, 1),
        "lines with personal data": Claim(len(lines_of("personal data")), 1, 1),
        "share of a row's tokens that count": Claim(sum(weights) / len(weights), 0.05, 0.4),
    }


EXERCISES = (
    Exercise(
        "Of seven lines, how many are left when all findings are gone?",
        1,
        lambda: len(rows(LINES)[0]) - len(report().unfit_lines),
    ),
    Exercise(
        "Is the same question in other words ('What is the source of that river?') found as near?",
        False,
        lambda: likeness(QUESTION, "What is the source of that river?") >= NEAR,
    ),
)
