"""The official client, unchanged, through the gateway to a network that is really computed."""

import base64
import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

ALICE, BOB = "sk-alice", "sk-bob"
KEYS = f"""
[keys.alice]
sha256 = "{hashlib.sha256(ALICE.encode()).hexdigest()}"
[keys.bob]
sha256 = "{hashlib.sha256(BOB.encode()).hexdigest()}"
limits = "once"
[limits.once]
requests_per_minute = 1
"""
ASK: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def url(serve: Callable[..., Any]) -> Iterator[str]:
    with serve(KEYS) as house:
        yield f"{house.url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=ALICE, max_retries=0) as it:
        yield it


def test_chat_whole_and_streamed_say_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASK, max_tokens=12)
    stream = client.chat.completions.create(
        **ASK, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    text = "".join(it.choices[0].delta.content or "" for it in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens == 12
    assert {it.model for it in [*chunks, whole]} == {"tiny-random"}


def test_usage_is_not_shown_to_who_did_not_ask(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert all(it.choices and "usage" not in it.model_fields_set for it in chunks)


def test_completions(client: openai.OpenAI) -> None:
    done = client.completions.create(model="tiny", prompt="once", max_tokens=4, logprobs=1)
    assert done.choices[0].finish_reason == "length"
    assert done.choices[0].logprobs is not None
    parts = client.completions.create(model="tiny", prompt="once", max_tokens=4, stream=True)
    assert "".join(it.choices[0].text for it in parts) == done.choices[0].text


def test_embeddings_as_numbers_and_as_bytes(client: openai.OpenAI) -> None:
    texts = ["one", "two"]
    plain = client.embeddings.create(model="embedder", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="embedder", input=texts, encoding_format="base64")
    for a, b in zip(plain.data, packed.data, strict=True):
        raw = base64.b64decode(b.embedding)  # type: ignore[arg-type]
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(a.embedding)


def test_models(client: openai.OpenAI) -> None:
    assert [it.id for it in client.models.list()] == [
        "tiny", "tiny@tiny-1", "embedder", "embedder@embedder-1",
    ]  # fmt: skip
    assert client.models.retrieve("tiny").id == "tiny"


def test_the_clients_own_error_classes(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(**{**ASK, "model": "nobody"})
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**{**ASK, "messages": []})
    assert bad.value.param == "messages"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(**ASK, max_tokens=1_000_000)
    assert (too_long.value.param, too_long.value.code) == ("max_tokens", "context_length_exceeded")
    stranger = openai.OpenAI(base_url=url, api_key="sk-nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(**{**ASK, "model": "tiny@tiny-1"})
    bob = openai.OpenAI(base_url=url, api_key=BOB, max_retries=0)
    bob.chat.completions.create(**ASK)
    with pytest.raises(openai.RateLimitError) as limited:
        bob.chat.completions.create(**ASK)
    assert limited.value.code == "rate_limit_exceeded"
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
    stranger.close()
    bob.close()


def test_what_a_model_refuses_and_what_it_ignores(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**ASK, temperature=9)
    assert wrong.value.param == "temperature"
    reply = client.chat.completions.with_raw_response.create(**ASK, extra_body={"zeal": 1})
    assert reply.headers["x-ignored-params"] == "zeal"
