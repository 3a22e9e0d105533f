"""How many tokens a text is, before and without asking anybody.

An upstream may name a `tokenizer.json`; its count is a bound once the template's tokens are added.
Without one the bound is the number of UTF-8 bytes, as no tokenizer makes more tokens than bytes.
An image counts what the config says of its upstream; sounds and files count their bytes.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from msgspec import json
from tokenizers import Tokenizer

from gateway.call import Call
from gateway.upstream import Target

TEMPLATE_TOKENS = 64  # what a chat template adds by itself, a default system text for example
MESSAGE_TOKENS = 8  # and for each message
BYTES_PER_TOKEN = 4  # of English, for estimates that are no bounds
INLINE_CHARS = 10_000  # more text is counted in a thread
IMAGES = ("image_url", "input_image", "image")


@lru_cache(maxsize=16)
def load_tokenizer(path: str) -> Tokenizer:
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


async def prompt_bound(call: Call, target: Target) -> int:
    """Tokens that the client's text and the call's prompt cannot exceed together."""
    bound = await body_bound(call.body, target, call.size)
    if call.prompt is None:
        return bound
    own = await body_bound({"input": call.prompt.text}, target)
    return bound * call.prompt.front.copies + own + MESSAGE_TOKENS * call.prompt.num_messages


async def body_bound(body: dict[str, Any], target: Target, size: int | None = None) -> int:
    """Tokens of the contents of a body, once a chat template was put around them.

    `size` [bytes] of the whole body, where it is known.
    """
    messages = body.get("messages") or ()
    extra = TEMPLATE_TOKENS + MESSAGE_TOKENS * len(messages) if messages else 0
    contents = list(_contents(body))
    texts = [it for it in contents if isinstance(it, str)]
    others = [it for it in contents if not isinstance(it, str)]
    bound = extra + sum(_bound_of(it, target) for it in others)
    if not target.tokenizer:
        return bound + (sum(map(_size, texts)) if size is None else size - sum(map(_size, others)))
    if sum(map(len, texts)) > INLINE_CHARS:
        return bound + await asyncio.to_thread(_count, target.tokenizer, texts)
    return bound + _count(target.tokenizer, texts)


def _bound_of(content: Any, target: Target) -> int:
    """Tokens of what is no text: ids, an image, a sound, …"""
    if isinstance(content, int | list):
        return len(content) if isinstance(content, list) else 1
    is_image = isinstance(content, dict) and content.get("type") in IMAGES
    return target.image_tokens if is_image and target.image_tokens else _size(content)


def estimate(bound: int, is_counted: bool) -> int:
    """What a prompt of this bound most likely is, when the upstream did not say."""
    return bound if is_counted else -(-bound // BYTES_PER_TOKEN)


def _count(path: str, texts: list[str]) -> int:
    tokenizer = load_tokenizer(path)
    return sum(len(one.ids) for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


def count(text: str, tokenizer: str) -> int:
    """Tokens of the text, or its bytes where nobody can count."""
    return _count(tokenizer, [text]) if tokenizer else _size(text)


def counts(texts: Sequence[str], tokenizer: str) -> list[int]:
    return [count(text, tokenizer) for text in texts]


def _size(text: Any) -> int:
    return len(text.encode(errors="replace") if isinstance(text, str) else json.encode(text))


def _contents(body: dict[str, Any]) -> Iterator[Any]:
    """All that an upstream may put into the prompt; what is no text stands for itself."""
    for message in body.get("messages") or ():
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [content]
        for part in parts:
            yield part.get("text", part) if isinstance(part, dict) else part
        if calls := message.get("tool_calls"):
            yield str(calls)
    for name in ("prompt", "input"):
        given = body.get(name) or []
        if isinstance(given, dict):  # a prompt that the request names: its variables
            given = [str(value) for value in (given.get("variables") or {}).values()]
        yield from given if isinstance(given, list) else [given]
    if tools := body.get("tools"):
        yield str(tools)
