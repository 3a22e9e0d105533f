"""Who answers in the lessons on prompts and evals: the engine, many chats at once; and the cases.

Beside it the lessons put a scripted speaker, on whom a mechanism works by construction: what the
small network cannot do is then seen to be its limit, and not the mechanism's.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec

from gateway.evals.cases import Case
from gateway.evals.statistics import Estimate, mean_of
from lessons.chat import Message, chat_text, checkpoint
from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.grammar import Grammars
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams

CASES = Path(__file__).parent.parent / "ops" / "evals" / "cases.jsonl"
BLOCK, NUM_BLOCKS = 16, 1024
Speaker = Callable[[list[Message]], str]  # one answer to one chat


@cache
def cases(tag: str) -> tuple[Case, ...]:
    """Our own cases of one tag."""
    rows = [json.loads(line) for line in CASES.read_text().splitlines()]
    return tuple(msgspec.convert(row, Case) for row in rows if tag in row["tags"])


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@cache
def engine() -> Engine:
    it = checkpoint()
    config = EngineConfig(
        context_length=2048, stop_ids=it.stop_ids, block_size=BLOCK, num_blocks=NUM_BLOCKS
    )
    runner = NetworkRunner(it.network, it.network.new_kv(NUM_BLOCKS, BLOCK))
    return Engine(runner, it.tokenizer, config, WallClock())


@cache
def _grammars() -> Grammars:
    return Grammars(checkpoint().tokenizer, checkpoint().stop_ids)


def complete(texts: Sequence[str], num_tokens: int, regex: str = "", **knobs: float) -> list[str]:
    """A continuation of each text, greedy unless told else; with `regex`, of that form.

    The first goes ahead, so that the others find what they begin with in the cache.
    """
    return _said(texts[:1], num_tokens, regex, knobs) + _said(texts[1:], num_tokens, regex, knobs)


def _said(texts: Sequence[str], num_tokens: int, regex: str, knobs: dict[str, float]) -> list[str]:
    grammar = _grammars().compile("regex", regex) if regex else None
    params = SamplingParams(max_tokens=num_tokens, **{"temperature": 0.0, **knobs})  # type: ignore[arg-type]
    for i, text in enumerate(texts):
        ids = checkpoint().tokenizer.encode(text)
        engine().add(Request(id=str(i), prompt_ids=ids, params=params, grammar=grammar))
    said = [""] * len(texts)
    while engine().has_work:
        for output in engine().step():
            said[int(output.request_id)] += output.text
    return said


def answers(
    chats: Sequence[list[Message]], num_tokens: int = 32, regex: str = "", **knobs: float
) -> list[str]:
    """The network's answer to each chat."""
    return complete([chat_text(chat) for chat in chats], num_tokens, regex, **knobs)


def gain(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """The mean paired difference with its 95 % interval.

    >>> gain([True, False, False], [True, True, True]).mean
    0.6666666666666666
    """
    return mean_of([float(b) - float(a) for a, b in zip(before, after, strict=True)])
