"""What the lessons on prompting share: chat turns as the network sees them, and its next token."""

import atexit
from functools import cache
from typing import Any

from model.network.batch import single_sequence
from model.network.linear import Floats
from model.protocol.templates import Renderer
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint

BLOCK = 16
Message = dict[str, Any]


@cache
def checkpoint() -> Checkpoint:
    return load_llama("smollm2")


@cache
def renderer() -> Renderer:
    made = Renderer()
    atexit.register(made.close)
    return made


def chat_text(messages: list[Message]) -> str:
    """One text of all turns, up to where the assistant is to speak."""
    variables = {"messages": messages, "add_generation_prompt": True}
    return renderer().render(checkpoint().chat_template or "", variables, strict=False)


def count(text: str) -> int:
    return len(checkpoint().tokenizer.encode(text))


def next_logits(text: str) -> Floats:
    """The scores [V] of what may come after the text."""
    token_ids = checkpoint().tokenizer.encode(text)
    kv = checkpoint().network.new_kv(-(-len(token_ids) // BLOCK), BLOCK)
    last: Floats = checkpoint().network.forward(single_sequence(token_ids, BLOCK), kv)[-1]
    return last


def say(text: str, num_tokens: int) -> str:
    """The greedy continuation of the text."""
    token_ids = checkpoint().tokenizer.encode(text)
    kv = checkpoint().network.new_kv(-(-(len(token_ids) + num_tokens) // BLOCK), BLOCK)
    start, new = 0, token_ids
    said: list[int] = []
    while len(said) < num_tokens:
        logits = checkpoint().network.forward(single_sequence(new, BLOCK, start), kv)
        start += len(new)
        new = [int(logits[-1].argmax())]
        if new[0] in checkpoint().stop_ids:
            break
        said += new
    return checkpoint().tokenizer.decode(said)
