"""What is counted before a request, and what is charged after it."""

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from gateway.call import Call
from gateway.charges import charge, read_usage, worst
from gateway.config import Price
from gateway.counting import prompt_bound
from gateway.routing.attempts import Attempt
from gateway.routing.frames import MAX_TOKENS
from gateway.upstream import Target
from model.protocol.shapes import read_object

DEAR = Target(
    name="dear", model="d", base_urls=(), prices=(Price(prompt=Decimal(2), completion=Decimal(10)),)
)
CHEAP = Target(
    name="cheap", model="c", base_urls=(), prices=(Price(prompt=Decimal(1), completion=Decimal(1)),)
)


PLAIN = Target(name="plain", model="p", base_urls=(), image_tokens=700)


def counting(tokenizer: str) -> Target:
    return msgspec.structs.replace(PLAIN, tokenizer=tokenizer)


def call_of(body: dict[str, Any], size: int = 1000) -> Call:
    return Call("id", "chat", body, size, {})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Words by spaces; everything is known as one token."""
    it = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    it.pre_tokenizer = Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    it.save(str(path))
    return str(path)


@given(st.text(), st.lists(st.text(), min_size=1))
def test_bytes_bound_any_text(role: str, texts: list[str]) -> None:
    raw = msgspec.json.encode({"messages": [{"role": role, "content": text} for text in texts]})
    call = call_of(read_object(raw), len(raw))
    assert asyncio.run(prompt_bound(call, PLAIN)) >= sum(len(text.encode()) for text in texts)


def test_a_tokenizer_counts_closer(tokenizer: str) -> None:
    parts = [{"type": "text", "text": "four words are here"}]
    call = call_of({"messages": [{"role": "user", "content": parts}]})
    assert asyncio.run(prompt_bound(call, counting(tokenizer))) == 64 + 8 + 4
    long = call_of({"prompt": "word " * 20_000})
    assert asyncio.run(prompt_bound(long, counting(tokenizer))) == 20_000


def test_what_is_no_text(tokenizer: str) -> None:
    url = "data:image/png;base64," + "A" * 20_000
    image, sound = {"type": "image_url", "image_url": {"url": url}}, {"type": "input_audio"}
    parts = [image, sound, {"type": "text", "text": "two words"}]
    call = call_of({"messages": [{"role": "user", "content": parts}]}, size=20_500)
    size_of = len(msgspec.json.encode(sound))
    assert asyncio.run(prompt_bound(call, counting(tokenizer))) == 64 + 8 + 700 + size_of + 2
    rest = 20_500 - len(msgspec.json.encode(image))
    assert asyncio.run(prompt_bound(call, PLAIN)) == 64 + 8 + 700 + rest
    bytes_alone = msgspec.structs.replace(PLAIN, image_tokens=0)
    assert asyncio.run(prompt_bound(call, bytes_alone)) == 64 + 8 + 20_500


def test_ids_are_as_many_tokens(tokenizer: str) -> None:
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        assert asyncio.run(prompt_bound(call_of({"input": ids}), counting(tokenizer))) == 3


def test_the_worst_is_the_dearest_target() -> None:
    assert worst([CHEAP, DEAR], 1000, 100) == 3_000_000  # nano-dollars: 2 + 1 thousandths


def attempt(target: Target, **fields: Any) -> Attempt:
    return Attempt(target, "", 0.0, **fields)


def test_every_attempt_is_charged_as_it_was_used() -> None:
    call = call_of({})
    call.bound_tokens = 400
    said = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    call.attempts = [
        attempt(DEAR, status=None),  # nobody there
        attempt(DEAR, status=503),  # refused
        attempt(DEAR, status=200, num_chunks=7),  # broke off
        attempt(CHEAP, status=200, num_chunks=5, usage=said),
    ]
    cost = charge(call)
    assert cost == (100 * 2 + 7 * 10) * 1000 + (10 + 5) * 1000
    assert (call.usage.prompt, call.usage.completion, call.usage.cached) == (110, 12, 4)
    assert call.usage.source == "estimated"


def test_a_fallback_without_trouble_before_is_the_upstreams_own_count() -> None:
    call = call_of({})
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    call.attempts = [attempt(DEAR), attempt(CHEAP, status=200, usage=usage)]
    assert charge(call) == 15_000
    assert (call.usage.prompt, call.usage.source) == (10, "upstream")


def test_what_an_upstream_claims_is_bounded() -> None:
    said = {
        "prompt_tokens": 10**15,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 10**12},
    }
    usage = read_usage(said)
    assert (usage.prompt, usage.cached, usage.completion) == (MAX_TOKENS, MAX_TOKENS, 7)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.none())))
def test_odd_usage_counts_nothing(said: dict[str, Any]) -> None:
    usage = read_usage({**said, "prompt_tokens": "many", "completion_tokens": -3})
    assert (usage.prompt, usage.completion, usage.cached) == (0, 0, 0)
