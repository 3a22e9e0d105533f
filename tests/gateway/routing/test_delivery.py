"""What a client may be given when, and how an answer goes on that broke off."""

import json
from typing import Any

import msgspec
import pytest

from gateway.routing.delivery import Delivery
from gateway.routing.frames import DONE_FRAME, Frame, read_event
from model.protocol.sse import Event

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}


def frame(finish: str | None = None, **delta: Any) -> Frame:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = json.dumps({"id": "first", "created": 5, "choices": [choice]}).encode()
    return read_event(Event(b"data: " + data + b"\n\n", data))


ROLE, WORD, STOP = frame(role="assistant", content=""), frame(content="a"), frame("stop")


def test_nothing_before_the_first_content() -> None:
    delivery = Delivery("error")
    assert delivery.take([ROLE]) == []
    assert not delivery.is_committed
    delivery.drop()
    assert delivery.take([ROLE]) == []
    assert delivery.take([WORD]) == [ROLE, WORD]
    assert delivery.is_committed
    assert [*delivery.take([STOP]), *delivery.take([DONE_FRAME])] == [STOP, DONE_FRAME]


def test_an_empty_answer_is_one() -> None:
    assert Delivery("error").take([STOP]) == [STOP]


def test_hold_gives_all_or_nothing() -> None:
    delivery = Delivery("hold")
    assert [*delivery.take([ROLE]), *delivery.take([WORD])] == []
    delivery.drop()
    assert [*delivery.take([WORD]), *delivery.take([STOP])] == []
    assert delivery.take([DONE_FRAME]) == [WORD, STOP, DONE_FRAME]


def resumed(body: dict[str, Any], *frames: Frame) -> dict[str, Any] | None:
    delivery = Delivery("continue")
    for it in frames:
        delivery.take([it])
    return delivery.resume(body)


def test_a_chat_goes_on_from_a_prefill() -> None:
    body = resumed({**CHAT, "max_tokens": 10, "top_p": 0.5}, ROLE, WORD, WORD)
    assert body == {
        **CHAT,
        "messages": [*CHAT["messages"], {"role": "assistant", "content": "aa"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 8,
        "top_p": 0.5,
    }


def test_a_prefill_of_the_clients_is_made_longer() -> None:
    begun = [*CHAT["messages"], {"role": "assistant", "content": "So: "}]
    body = resumed({"messages": begun, "continue_final_message": True}, WORD)
    assert body is not None
    assert body["messages"] == [*CHAT["messages"], {"role": "assistant", "content": "So: a"}]


def test_a_completion_goes_on_from_its_prompt() -> None:
    text = json.dumps({"choices": [{"text": "b", "finish_reason": None}]}).encode()
    assert resumed({"prompt": "a"}, read_event(Event(text, text))) == {"prompt": "ab"}
    assert resumed({"prompt": ["a"]}, read_event(Event(text, text))) is None


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (CHAT, (ROLE,)),
        (CHAT, (WORD, frame(tool_calls=[{"index": 0}]))),
        (CHAT, (frame(reasoning_content="hm"), WORD)),
        ({**CHAT, "response_format": {"type": "json_object"}}, (WORD,)),
        ({**CHAT, "max_tokens": 2}, (WORD, WORD)),
    ],
)
def test_what_cannot_go_on(body: dict[str, Any], frames: tuple[Frame, ...]) -> None:
    assert resumed(body, *frames) is None


def test_a_continuation_keeps_the_identity_of_the_answer() -> None:
    delivery = Delivery("continue")
    delivery.take([WORD])
    assert delivery.resume(CHAT) is not None
    other = msgspec.structs.replace(WORD, data=WORD.data.replace(b"first", b"second"))
    assert delivery.take([ROLE]) == []
    [given] = delivery.take([other])
    assert json.loads(given.data) == json.loads(WORD.data)
    assert given.raw == b"data: " + given.data + b"\n\n"
    counts = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    data = json.dumps({"id": "second", "choices": [], "usage": counts}).encode()
    [usage] = delivery.take([read_event(Event(data, data))])
    counts = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert json.loads(usage.data)["usage"] == counts
    assert delivery.take([DONE_FRAME]) == [DONE_FRAME]


def test_odd_usage_of_a_continuation_counts_nothing() -> None:
    delivery = Delivery("continue")
    delivery.take([WORD])
    assert delivery.resume(CHAT) is not None
    data = b'{"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": null}}'
    [usage] = delivery.take([read_event(Event(data, data))])
    counts = {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
    assert json.loads(usage.data)["usage"] == counts
