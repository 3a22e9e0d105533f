"""What is wrong with a body is said in OpenAI's words, with the path of the field."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.protocol.errors import ErrorDetail, InvalidRequest, encode_error, read_error
from model.protocol.shapes import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    fields_of,
    read_object,
    read_shape,
)

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def chat(**more):
    return read_shape(read_object(json.dumps(HELLO | more).encode()), ChatRequest)


def param_of(**more):
    with pytest.raises(InvalidRequest) as caught:
        chat(**more)
    return caught.value.param


def test_a_chat_request():
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    request = chat(
        messages=[{"role": "developer", "content": "x"}, {"role": "user", "content": parts}],
        logit_bias={"17": -100},
        tool_choice={"type": "function", "function": {"name": "f"}},
        foo=1,
    )
    assert request.messages[1].content[1].type == "image_url"
    assert request.logit_bias == {17: -100.0}
    assert request.tool_choice.function.name == "f"
    assert "foo" not in fields_of(ChatRequest)
    assert "cache_salt" in fields_of(ChatRequest)
    assert chat(temperature=None, stop=None, tools=None).temperature is None


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 10**40}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"logit_bias": {"3": float("inf")}}, "logit_bias.3"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[...]"),
        ({"seed": 2**63}, "seed"),
        ({"n": 0}, "n"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ],
)  # fmt: skip
def test_the_field_at_fault_is_named(more, param):
    assert param_of(**more) == param


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1]", b"null", b'"x"', b"{}x", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"a":"\\ud800"}', b'{"a":"\xed\xa0\x80"}', b'{"a":01}', b'{"a":1e999}', b'{"a":NaN}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object(body):
    with pytest.raises(InvalidRequest, match=r"body|finite") as caught:
        read_object(body)
    assert len(caught.value.message) < 200


def test_a_number_that_is_none_names_its_field():
    for body in (b'{"temperature": 1e999}', b'{"temperature": NaN}', b'{"temperature": -Infinity}'):
        with pytest.raises(InvalidRequest) as caught:
            read_object(body)
        assert caught.value.param == "temperature"


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]], ["a", [1]]])
def test_the_forms_of_a_prompt(prompt):
    assert read_shape({"model": "m", "prompt": prompt}, CompletionRequest).prompt == prompt
    assert read_shape({"model": "m", "input": prompt}, EmbeddingRequest).input == prompt


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(sorted(fields_of(ChatRequest))), JSON))
def test_any_json_is_read_or_refused(body):
    data = json.dumps(body).encode()
    with contextlib.suppress(InvalidRequest):
        read_shape(read_object(data), ChatRequest)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(InvalidRequest):
        read_shape(read_object(data), ChatRequest)


def test_an_error_body_comes_back():
    body = encode_error("no", "invalid_request_error", param="n", code="c")
    assert read_error(400, body) == ErrorDetail("no", "invalid_request_error", "n", "c")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "overloaded"}', "overloaded"),
        (b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (b'{"detail": [{"loc": ["n"]}]}', '[{"loc":["n"]}]'),
        (b'{"error": {"message": 3}}', "3"),
        (b"<html>", "Bad Gateway"),
        (b"\xff", "Bad Gateway"),
        (b"[]", "Bad Gateway"),
        (b"[" * 100_000, "Bad Gateway"),
    ],
)
def test_another_servers_error_is_understood(body, message):
    assert read_error(502, body).message == message
    assert read_error(599, b"").message == "status 599"
