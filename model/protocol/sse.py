"""Server-sent events: written, and read from a byte stream in chunks of any size.

The reader follows the WHATWG rules (HTML standard, 9.2.6: interpreting an event stream).
An event's data stays bytes: whoever reads it decodes JSON, which checks the UTF-8.
"""

# ruff: noqa: A002 - `id` is the standard's word

import re
from collections.abc import Iterator

import msgspec

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": ping\n\n"  # a comment: keeps the connection, is no event

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """A line or an event is longer than the reader's bound."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. `raw` is its canonical frame, ready to be relayed.

    For the frames that servers of language models send (`data: …`, blank line, LF only)
    the canonical frame is what arrived, byte for byte.
    """

    raw: bytes
    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None


def encode_event(
    data: bytes, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """The canonical frame of an event; data of several lines becomes several `data:` lines."""
    head = b""
    if event not in (None, "message"):
        head += f"event: {event}\n".encode()
    if id is not None:
        head += f"id: {id}\n".encode()
    if retry is not None:
        head += f"retry: {retry}\n".encode()
    lines = _LINE_END.split(data) if b"\n" in data or b"\r" in data else [data]
    return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


class EventReader:
    """Bytes in, events out; which events does not depend on how the bytes were cut.

    `max_bytes` bounds each line and each event; beyond it `EventTooLarge`.
    What follows the last blank line is never an event; `is_midway` tells whether there is any.
    """

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.max_bytes = max_bytes
        self._tail = bytearray()  # a line whose end has not come yet
        self._is_first = True  # no line was seen: a byte-order mark may still come
        self._skip_lf = False  # the last chunk ended in CR: an LF that follows belongs to it
        self._last_id: str | None = None
        self._clear()

    def _clear(self) -> None:
        self._data: list[bytes] = []
        self._event = "message"
        self._id: str | None = None
        self._retry: int | None = None
        self._size = 0

    @property
    def is_midway(self) -> bool:
        """Is there a part of an event that no blank line has ended?"""
        return bool(self._tail or self._size)

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes. Exhaust the iterator before the next call."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        has_cr = b"\r" in chunk
        if b"\n" not in chunk and not has_cr:
            self._tail += chunk
            self._check(len(self._tail) - 3 * self._is_first)
            return
        text = chunk
        if self._tail:
            text = bytes(self._tail) + chunk
            self._tail.clear()
        if self._is_first:
            self._is_first, text = False, text.removeprefix(_BOM)
        if not self._size and not has_cr:  # fast, for events of one line of data each
            *frames, rest = text.split(b"\n\n")
            for number, frame in enumerate(frames):
                if not frame.startswith(b"data: ") or b"\n" in frame:
                    rest = b"\n\n".join([*frames[number:], rest])
                    break
                if len(frame) > self.max_bytes:
                    self._check(len(frame))
                yield Event(frame + b"\n\n", frame[6:], "message", self._last_id)
            text = rest
        if text:
            yield from self._events(text)

    def _events(self, text: bytes) -> Iterator[Event]:
        start = 0
        while start < len(text):
            match = _LINE_END.search(text, start)
            if match is None:
                self._check(len(text) - start)
                self._tail += text[start:]
                return
            line, start = text[start : match.start()], match.end()
            self._skip_lf = match.group() == b"\r" and start == len(text)
            self._check(len(line))
            if line:
                self._take(line)
            elif self._data:
                yield self._dispatch()
            else:
                self._clear()

    def _check(self, num_bytes: int) -> None:
        if self._size + num_bytes > self.max_bytes:
            raise EventTooLarge(f"an event is longer than {self.max_bytes} bytes")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode(errors="replace") or "message"
        elif name == b"id" and b"\0" not in value:
            self._id = self._last_id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 12:
            self._retry = int(value)
        else:
            return  # a comment or a field that nobody knows takes no room
        self._size += len(line)

    def _dispatch(self) -> Event:
        data = b"\n".join(self._data)
        raw = encode_event(data, event=self._event, id=self._id, retry=self._retry)
        event = Event(raw, data, self._event, self._last_id, self._retry)
        self._clear()
        return event
