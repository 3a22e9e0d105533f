"""Everything that the model server can answer that is not an answer.

    ServerError                500 api_error
    ├── BadRequest             400 invalid_request_error
    │   ├── ContextTooLong     400   code context_length_exceeded
    │   ├── Unauthorized       401   for what only an admin may do
    │   ├── Forbidden          403
    │   ├── NotFound           404   code model_not_found for an unknown model
    │   ├── MethodNotAllowed   405
    │   ├── SlowBody           408
    │   └── BodyTooLarge       413
    └── Unavailable            503 unavailable   with Retry-After
        ├── Loading            the weights are on their way
        └── Overloaded         a bound of a queue is reached

An error is raised anywhere and becomes a response in `app.py`, or the last event of a stream in
`replies.py`; `as_server_error` is the one place that knows what other rooms' errors mean.
"""

import logging

from starlette.exceptions import HTTPException

from model.engine import errors as engine
from model.protocol.errors import InvalidRequest, encode_error
from model.protocol.templates import TemplateError

logger = logging.getLogger(__name__)

FIELD_OF = {"include_stop": "include_stop_str_in_output", "prompt_ids": "prompt"}  # ours → theirs


class ServerError(Exception):
    """`headers` are added to the response; `param` names the offending field of the request."""

    status = 500
    type = "api_error"
    code: str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012  (never changed)

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param
        self.code = code or type(self).code

    @property
    def body(self) -> bytes:
        return encode_error(self.message, self.type, param=self.param, code=self.code)


class BadRequest(ServerError):
    status = 400
    type = "invalid_request_error"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class Unauthorized(BadRequest):
    status = 401
    code = "invalid_api_key"


class Forbidden(BadRequest):
    status = 403
    code = "forbidden"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class SlowBody(BadRequest):
    status = 408
    code = "slow_body"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class Unavailable(ServerError):
    status = 503
    type = "unavailable"
    headers = {"retry-after": "1"}  # noqa: RUF012


class Loading(Unavailable):
    code = "loading"


class Overloaded(Unavailable):
    code = "overloaded"


HTTP_ERRORS = {404: NotFound, 405: MethodNotAllowed, 413: BodyTooLarge}


def as_server_error(error: Exception) -> ServerError:
    """What `error` means to a client."""
    match error:
        case ServerError():
            return error
        case InvalidRequest():
            return BadRequest(error.message, error.param, error.code)
        case engine.TooLong():
            return ContextTooLong(str(error), FIELD_OF.get(error.param, error.param))
        case engine.InvalidRequest():
            return BadRequest(str(error), FIELD_OF.get(error.param, error.param))
        case engine.QueueFull():
            return Overloaded(str(error))
        case TemplateError():
            return BadRequest(f"the chat template refuses the messages: {error}", "messages")
        case HTTPException():
            refusal = HTTP_ERRORS.get(error.status_code, BadRequest)(error.detail)
            refusal.headers = dict(error.headers or {})  # Allow, of a 405
            return refusal
    logger.error("unexpected", exc_info=error)
    return ServerError("the server failed; its log says how")
