"""What an event of a stream, or a whole body, says: content, a finish, usage, the end, an error.

Every event is decoded, after the first token too: a malformed one must never pass as an answer,
and a typed decode that skips what nobody reads costs about a microsecond.
"""

from typing import Any, Literal

import msgspec

from gateway.upstream import UpstreamError
from model.protocol.sse import DONE, Event, encode_event

Kind = Literal["content", "finish", "usage", "done", "other", "body"]

MAX_TOKENS = 10**9  # an upstream that claims more is not believed, lest sums overflow
BROKEN_FINISHES = {"error", "abort"}  # what servers say when they gave up half-way
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
}
_BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: dict[str, Any] | None = None  # chat
    text: str | None = None  # completions
    message: dict[str, Any] | None = None  # chat, answered as a whole
    finish_reason: str | None = None

    @property
    def has_content(self) -> bool:
        """Text, reasoning, a refusal, a tool call: whatever a client would show or use."""
        if not self.delta:
            return bool(self.text)
        if self.delta.get("content"):
            return True
        return any(it for name, it in self.delta.items() if name != "role")


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    data: msgspec.Raw = msgspec.Raw()  # of embeddings


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer. `raw` is what to relay: a whole event, or the body of a plain reply.

    `kind` is the most telling thing in it; a frame with a finish may carry content and usage too.
    """

    kind: Kind
    raw: bytes
    data: bytes = b""
    choices: list[Choice] = []
    usage: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """What it adds to the first choice's text."""
        for choice in self.choices:
            if choice.index == 0:
                said = choice.text or (choice.delta or {}).get("content")
                return said if isinstance(said, str) else ""
        return ""


DONE_FRAME = Frame("done", DONE)
_DECODER = msgspec.json.Decoder(Chunk)


def read_event(event: Event) -> Frame:
    """Raises UpstreamError: "malformed", or "status" for an error that came in the stream."""
    if not event.data.startswith(b"{") and event.data.strip() == b"[DONE]":
        return DONE_FRAME
    chunk = _decode(event.data, is_error=event.event == "error")
    choices = chunk.choices or []
    kind: Kind = "other" if choices or chunk.usage is None else "usage"
    for choice in choices:
        if choice.finish_reason is not None:
            if choice.message and choice.delta is None:
                return read_event(_as_chunk(event))
            kind = "finish"
            _check_finish(choice.finish_reason)
        elif kind == "other" and choice.has_content:
            kind = "content"
    return Frame(kind, event.raw, event.data, choices, chunk.usage)


def _as_chunk(event: Event) -> Event:
    """A whole answer, come where a stream was asked for, as the one chunk of it."""
    try:
        answer = msgspec.json.decode(event.data) | {"object": "chat.completion.chunk"}
        for choice in answer["choices"]:
            if message := choice.pop("message", None):
                choice["delta"] = message
                for i, call in enumerate(message.get("tool_calls") or ()):
                    call["index"] = i
    except (*_BAD_JSON, TypeError) as error:
        raise UpstreamError("malformed", "a whole answer that is none") from error
    data = msgspec.json.encode(answer)
    return Event(encode_event(data), data)


def read_body(body: bytes) -> Frame:
    """The body of a reply that is not streamed. Raises UpstreamError as `read_event` does."""
    chunk = _decode(body)
    choices = chunk.choices or []
    if not choices and not bytes(chunk.data):
        raise UpstreamError("malformed", "neither choices nor data")
    for choice in choices:
        _check_finish(choice.finish_reason)
    return Frame("body", body, body, choices, chunk.usage)


def count(said: object) -> int:
    """Tokens, as a usage claims them: what is no number counts nothing."""
    return min(max(said, 0), MAX_TOKENS) if isinstance(said, int) else 0


def _decode(data: bytes, is_error: bool = False) -> Chunk:
    try:
        if not data.isascii():
            data.decode()  # the decoder takes no offence at what it skips
        chunk = _DECODER.decode(data)
    except _BAD_JSON as error:
        raise UpstreamError("malformed", str(error)) from error
    if chunk.error or is_error:
        raise UpstreamError("status", status=_status(chunk.error), body=data)
    return chunk


def _status(error: Any) -> int:
    """The HTTP status that an error in a stream stands for; 502 where it does not say."""
    detail = error if isinstance(error, dict) else {}
    for said in (detail.get("code"), detail.get("status"), STATUSES.get(str(detail.get("type")))):
        if isinstance(said, int) and 400 <= said < 600:
            return said
    return 502


def _check_finish(reason: str | None) -> None:
    if reason in BROKEN_FINISHES:
        raise UpstreamError("truncated", f"finish_reason {reason!r}")
