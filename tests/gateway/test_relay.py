"""What the client reads of an upstream's events."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.relay import Relay
from gateway.routing.frames import Frame, read_event
from model.protocol.sse import Event

SPACED, TIGHT = (", ", ": "), (",", ":")


def frame(separators: tuple[str, str], **more: Any) -> Frame:
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    body = {"id": "1", "model": "theirs", "choices": [choice], **more}
    data = json.dumps(body, separators=separators).encode()
    return read_event(Event(b"data: " + data + b"\n\n", data))


def relay(wants_usage: bool = False) -> Relay:
    call: Any = SimpleNamespace(wants_usage=wants_usage, finish="", usage=SimpleNamespace(prompt=0))
    served: Any = SimpleNamespace(model="ours")
    return Relay(call, served)


@pytest.mark.parametrize("first", [SPACED, TIGHT])
@pytest.mark.parametrize("then", [SPACED, TIGHT])
def test_the_model_is_named_however_an_upstream_spells(
    first: tuple[str, str], then: tuple[str, str]
) -> None:
    it = relay()
    said = it.take([frame(first)]) + it.take([frame(then), frame(then)])
    assert said.count(b"ours") == 3
    assert b"theirs" not in said


def test_a_stream_keeps_the_name_that_it_began_with() -> None:
    it = relay()
    begun = it.take([frame(SPACED)])
    it._served.model = "another's"  # type: ignore[misc] # who goes on where the first broke off
    assert b"ours" in begun
    assert b"ours" in it.take([frame(TIGHT)])


@pytest.mark.parametrize("separators", [SPACED, TIGHT])
def test_no_usage_is_said_only_to_who_asked(separators: tuple[str, str]) -> None:
    for wants_usage in (False, True):
        said = relay(wants_usage).take([frame(separators, usage=None)])
        assert (b"usage" in said) == wants_usage


def test_an_event_without_a_model_passes() -> None:
    data = b'{"choices":[]}'
    it = read_event(Event(b"data: " + data + b"\n\n", data))
    assert relay().take([it, it]) == 2 * it.raw
