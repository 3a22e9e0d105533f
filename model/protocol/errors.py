"""OpenAI's error body, written and read, and the one error that a bad request body raises here.

Leaves out which exception of a process means which status: each process says that in one place.
"""

# ruff: noqa: A002 - `type` is OpenAI's word

from http import HTTPStatus

import msgspec


class InvalidRequest(Exception):
    """The client's fault: `message` says what, `param` where (`messages[0].content`), if known."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class ErrorDetail(msgspec.Struct):
    """The inner object of `{"error": {...}}`."""

    message: str
    type: str = "api_error"
    param: str | None = None
    code: str | int | None = None


class ErrorBody(msgspec.Struct):
    """The body of every response that is not a success."""

    error: ErrorDetail


def encode_error(
    message: str, type: str, *, param: str | None = None, code: str | None = None
) -> bytes:
    """The JSON body of a response; in a stream, the data of its last event."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(message, type, param, code)))


def read_error(status: int, body: bytes) -> ErrorDetail:
    """What a server said when it answered `status`; its body may be OpenAI's, another's, or junk.

    Understood besides OpenAI's form: `{"error": "text"}`, `{"message": "text"}`, `{"detail": …}`.
    """
    return _detail_in(body) or ErrorDetail(_text_in(body) or _phrase(status))


def is_error(body: bytes) -> bool:
    """Whether `body` is an error in OpenAI's form."""
    return _detail_in(body) is not None


def _detail_in(body: bytes) -> ErrorDetail | None:
    try:
        return msgspec.json.decode(body, type=ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _text_in(body: bytes) -> str:
    try:
        other = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(other, dict):
        return ""
    found = next((other[name] for name in ("error", "message", "detail") if name in other), "")
    if isinstance(found, dict):
        found = found.get("message", "")
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"
