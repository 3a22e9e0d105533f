"""A kept answer in its two forms: the chunks of a stream, and a body.

It may be asked for in the form in which it did not come. Nothing is made up: what one form says,
the other says. Chunks and bodies are JSON as bytes, of chat and of completions.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.routing.frames import DONE_FRAME, Frame, read_body, read_event
from model.protocol.sse import Event, encode_event

Json = dict[str, Any]
CHAT, CHAT_CHUNK = "chat.completion", "chat.completion.chunk"
TEXTS = {"content", "refusal", "reasoning", "reasoning_content", "arguments", "text"}
OVERHEAD = 1_000  # bytes of an entry that are not its data


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`data`: the chunks of a stream, or one body."""

    data: list[bytes]
    is_stream: bool
    stored: float  # [s since the epoch]
    model: str  # who served it
    usage: dict[str, Any] | None
    cost: int = 0  # nano-dollars, when it was made

    @property
    def size(self) -> int:
        return sum(map(len, self.data)) + OVERHEAD

    def frames(self, is_stream: bool) -> list[Frame]:
        data = self.data
        if is_stream != self.is_stream:
            data = to_stream(data[0]) if is_stream else [to_body(data)]
        if not is_stream:
            return [read_body(data[0])]
        return [*(read_event(Event(encode_event(it), it)) for it in data), DONE_FRAME]


def to_stream(body: bytes) -> list[bytes]:
    """Per choice all it says and its end, then the usage."""
    head: Json = msgspec.json.decode(body)
    choices, usage = head.pop("choices"), head.pop("usage", None)
    if head.get("object") == CHAT:
        head["object"] = CHAT_CHUNK
    chunks = []
    for choice in choices:
        said, end = _said_and_end(choice)
        chunks += [{**head, "choices": [said]}, {**head, "choices": [end]}]
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    return [msgspec.json.encode(chunk) for chunk in chunks]


def to_body(chunks: Iterable[bytes]) -> bytes:
    """All chunks of a complete stream as the body that would have come instead."""
    body: Json = {}
    choices: dict[int, Json] = {}
    for data in chunks:
        chunk = msgspec.json.decode(data)
        for piece in chunk.pop("choices", ()):
            _merge(choices.setdefault(piece.get("index", 0), {}), piece)
        body = {**chunk, **{name: value for name, value in body.items() if value is not None}}
    if body.get("object") == CHAT_CHUNK:
        body["object"] = CHAT
    whole = [_whole(choices[index]) for index in sorted(choices)]
    return msgspec.json.encode({**body, "choices": whole})


def _said_and_end(choice: Json) -> tuple[Json, Json]:
    said = {**choice, "finish_reason": None}
    end = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason")}
    if "message" not in choice:
        return said, {**end, "text": ""}
    delta = said["delta"] = dict(said.pop("message"))
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
    return said, {**end, "delta": {}}


def _whole(choice: Json) -> Json:
    if "delta" not in choice:
        return choice
    message = {"role": "assistant", "content": None, **choice.pop("delta")}
    if calls := message.get("tool_calls"):
        ordered = sorted(calls, key=lambda call: call["index"])
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in ordered
        ]
    return {**choice, "message": message}


def _merge(into: Json, piece: Json) -> None:
    for name, value in piece.items():
        old = into.get(name)
        if value is None or old is None:
            into[name] = old if value is None else value
        elif name == "tool_calls":
            _merge_calls(old, value)
        elif isinstance(value, dict):
            _merge(old, value)
        elif isinstance(value, list):
            old += value
        else:
            into[name] = old + value if name in TEXTS else value


def _merge_calls(calls: list[Json], pieces: list[Json]) -> None:
    for piece in pieces:
        call = next((it for it in calls if it.get("index") == piece.get("index")), None)
        if call is None:
            calls.append(piece)
        else:
            _merge(call, piece)
