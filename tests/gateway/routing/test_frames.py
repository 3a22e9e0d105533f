"""What the events of a stream say, in the dialects of those who send them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.frames import read_body, read_event
from gateway.upstream import UpstreamError
from model.protocol.sse import Event


def event(data: object, name: str = "message") -> Event:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(b"data: " + raw + b"\n\n", raw, name)


def chat(finish: str | None = None, **delta: Any) -> Event:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
KINDS = [
    (chat(role="assistant", content=""), "other"),
    (chat(role="assistant", content=None, refusal=None), "other"),
    (chat(content="a"), "content"),
    (chat(content=[{"type": "text", "text": "a"}]), "content"),
    (chat(reasoning_content="hm"), "content"),
    (chat(tool_calls=[{"index": 0}]), "content"),
    (chat("stop"), "finish"),
    (chat("length", content="last"), "finish"),
    (event({"choices": [{"index": 0, "text": "a", "finish_reason": None}]}), "content"),
    (event({"choices": [{"text": "", "finish_reason": "stop"}]}), "finish"),
    (event({"choices": [], "usage": USAGE}), "usage"),
    (event({"choices": [{"delta": {}}], "usage": USAGE}), "other"),
    (event({"choices": [], "prompt_filter_results": []}), "other"),
    (event({"choices": None, "error": None}), "other"),
    (event(b"[DONE]"), "done"),
    (event(b" [DONE] "), "done"),
]


@pytest.mark.parametrize(("said", "kind"), KINDS)
def test_kind(said: Event, kind: str) -> None:
    assert read_event(said).kind == kind


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b'{"choices": "no"}', b'{"a": "\xff"}', b"[" * 10_000]
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(UpstreamError, match="malformed"):
        read_event(event(data))
    with pytest.raises(UpstreamError, match="malformed"):
        read_body(data)


def test_a_body_that_answers_nothing() -> None:
    for said in (b"{}", b'{"id": "x", "choices": []}', b'{"detail": "no"}'):
        with pytest.raises(UpstreamError, match="malformed"):
            read_body(said)
    assert read_body(b'{"object": "list", "data": []}').kind == "body"


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (event({"error": {"message": "no", "code": 429}}), 429),
        (event({"error": {"message": "no", "type": "invalid_request_error", "code": "x"}}), 400),
        (event({"error": {"message": "no", "code": 7}}), 502),
        (event({"error": "no"}), 502),
        (event({"message": "no"}, "error"), 502),
    ],
)
def test_an_error_in_the_stream(said: Event, status: int) -> None:
    with pytest.raises(UpstreamError) as caught:
        read_event(said)
    assert (caught.value.kind, caught.value.status) == ("status", status)
    assert caught.value.body == said.data


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_a_finish_that_is_none(reason: str) -> None:
    with pytest.raises(UpstreamError, match="truncated"):
        read_event(chat(reason))


def test_text_is_that_of_the_first_choice() -> None:
    choices = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]
    assert read_event(event({"choices": choices})).text == "a"
    assert read_event(chat(content=["a"])).text == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_event(event(data))
    except UpstreamError as error:
        assert error.kind in ("malformed", "status", "truncated")  # noqa: PT017
