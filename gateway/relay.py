"""From an upstream's frames to the client's bytes: what nothing changes passes as it came.

Changed are `model`, which names who served, and the usage event, which is always asked for but
shown only to who asked. How both are spelled is learned from the events.
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
_NO_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')  # said only because we asked for usage


class Relay:
    """Of one call. What it learns of a spelling holds until an event is spelled otherwise."""

    def __init__(self, call: Call, served: Served) -> None:
        self._call = call
        self._served = served
        self._body = b""
        self._first = b""  # data of the first event
        self._model = b""  # who served when it came: a stream keeps its name
        self._has_usage = False
        self._old = self._new = self._no_usage = b""

    def take(self, frames: list[Frame]) -> bytes:
        """The bytes that go to the client now; none of what ends, hides or waits."""
        return b"".join(
            [
                self._rename(it) if it.kind == "content" and it.usage is None else self._take(it)
                for it in frames
            ]
        )

    def last(self) -> bytes:
        """What must not be sent before the call is settled: the whole body, or the end.

        A client that asked for usage hears what it is charged for, if the upstream said nothing.
        """
        usage = self._call.usage
        is_told = self._has_usage or not (usage.prompt and self._first)
        if self._body or is_told or not self._call.wants_usage:
            return self._body or DONE
        first: dict[str, Any] = msgspec.json.decode(self._first)
        event: dict[str, Any] = {
            name: first[name] for name in ("id", "object", "created") if name in first
        }
        counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}
        counts["total_tokens"] = usage.prompt + usage.completion
        event |= {"model": msgspec.Raw(self._model), "choices": [], "usage": counts}
        return encode_event(msgspec.json.encode(event)) + DONE

    def _take(self, frame: Frame) -> bytes:
        if frame.kind == "done":
            return b""
        if frame.kind in ("finish", "body"):
            self._note_finish(frame)
        if frame.kind == "body":
            self._body = self._rename(frame)
            return b""
        if frame.usage is not None:
            self._has_usage = True
            if not self._call.wants_usage:
                return b"" if frame.kind == "usage" else self._without_usage(frame)
        return self._rename(frame)

    def _note_finish(self, frame: Frame) -> None:
        for choice in frame.choices:
            self._call.finish = choice.finish_reason or self._call.finish

    def _rename(self, frame: Frame) -> bytes:
        raw = frame.raw
        if self._old not in raw or not self._first:
            self._learn(frame)
        if self._no_usage:
            raw = raw.replace(self._no_usage, b"", 1)
        return raw if self._old == self._new else raw.replace(self._old, self._new, 1)

    def _learn(self, frame: Frame) -> None:
        """How this upstream spells; a continuation is by another one."""
        self._first = self._first or frame.data
        self._model = self._model or msgspec.json.encode(self._served.model)
        if found := _MODEL.search(frame.raw):
            self._old = found[0]
            self._new = found[1] + self._model
        if not self._call.wants_usage and (found := _NO_USAGE.search(frame.raw)):
            self._no_usage = found[0]

    def _without_usage(self, frame: Frame) -> bytes:
        event: dict[str, Any] = msgspec.json.decode(frame.data)
        del event["usage"]
        raw = encode_event(msgspec.json.encode(event))
        return self._rename(msgspec.structs.replace(frame, raw=raw))
