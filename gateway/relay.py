"""From an upstream's frames to the client's bytes: what nothing changes passes as it came.

Changed are `model`, which names who served, and the usage event, which is always asked for but
shown only to who asked. The spelling of `model` is learned from the first event.
"""

import re
from typing import Any

import msgspec

from gateway.answer_cache import Served
from gateway.call import Call
from gateway.routing.frames import Frame
from model.protocol.sse import DONE, encode_event

# A quote inside a string is escaped, so this matches no text that a model wrote.
_MODEL = re.compile(rb'("model"\s*:\s*)(?:"(?:[^"\\]|\\.)*"|null)')


class Relay:
    """`last` is what must not be sent before the call is settled: the whole body, or the end."""

    def __init__(self, call: Call, served: Served) -> None:
        self.last = DONE
        self._call = call
        self._served = served
        self._old = self._new = b""
        self._is_learned = False

    def take(self, frames: list[Frame]) -> bytes:
        """The bytes that go to the client now; none of what ends, hides or waits."""
        return b"".join(map(self._take, frames))

    def _take(self, frame: Frame) -> bytes:
        if frame.kind == "done":
            return b""
        if frame.kind in ("finish", "body"):
            self._note_finish(frame)
        if frame.kind == "body":
            self.last = self._rename(frame)
            return b""
        if frame.usage is not None and not self._call.wants_usage:
            return b"" if frame.kind == "usage" else self._without_usage(frame)
        return self._rename(frame)

    def _note_finish(self, frame: Frame) -> None:
        for choice in frame.choices:
            self._call.finish = choice.finish_reason or self._call.finish

    def _rename(self, frame: Frame) -> bytes:
        if not self._is_learned:
            self._learn(frame)
        raw = frame.raw
        if not self._call.wants_usage:
            raw = raw.replace(b',"usage":null', b"", 1)  # said only because we asked for usage
        return raw if self._old == self._new else raw.replace(self._old, self._new, 1)

    def _learn(self, frame: Frame) -> None:
        self._is_learned = True
        if found := _MODEL.search(frame.raw):
            self._old = found[0]
            self._new = found[1] + msgspec.json.encode(self._served.model)

    def _without_usage(self, frame: Frame) -> bytes:
        event: dict[str, Any] = msgspec.json.decode(frame.data)
        del event["usage"]
        raw = encode_event(msgspec.json.encode(event))
        return self._rename(msgspec.structs.replace(frame, raw=raw))
