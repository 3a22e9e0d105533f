"""Everything the gateway can answer that is not an answer.

GatewayError                  500 api_error              code internal_error for a fault of ours
├── BadRequest                400 invalid_request_error
│   ├── BodyTooLarge          413
│   ├── EncodedBody           415   compressed, for example
│   ├── SlowClient            408
│   ├── NothingRelevant       422   the release refuses what its documents do not speak of
│   ├── NotFound              404   code model_not_found for an unknown family
│   └── MethodNotAllowed      405
├── Unauthenticated           401 authentication_error   code invalid_api_key
├── Forbidden                 403 permission_error
├── RateLimited               429 rate_limit_error
│   └── QuotaExhausted        429 insufficient_quota     not worth a retry
├── Rejected                  the upstream's own 4xx, passed on as it was said
├── UpstreamFailed            502 upstream_error
│   └── UpstreamTimeout       504
└── Unavailable               503 unavailable            always with Retry-After
    └── ShuttingDown          503                        also in-band, for streams cut by the end

An error is raised anywhere and turned into a response in one place, `app.py`; in a stream that has
begun it becomes an in-band event in `chat.py`. The shape is OpenAI's, in `model.protocol.errors`.
"""

import math

from model.protocol.errors import encode_error, is_error, read_error


class GatewayError(Exception):
    """`headers` are added to the response; `param` names the offending field of the request."""

    status = 500
    type = "api_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.headers = headers

    def encode(self) -> bytes:
        """The JSON body of a response, or the data of a stream's last event."""
        return encode_error(self.message, self.type, param=self.param, code=self.code)


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class BodyTooLarge(BadRequest):
    status = 413
    code = "body_too_large"


class EncodedBody(BadRequest):
    status = 415
    code = "encoded_body"


class SlowClient(BadRequest):
    status = 408
    code = "slow_client"


class NothingRelevant(BadRequest):
    status = 422
    code = "nothing_relevant"


class NotFound(BadRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "method_not_allowed"


class Unauthenticated(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"
    code = "forbidden"


class RateLimited(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaExhausted(RateLimited):
    type = "insufficient_quota"
    code = "insufficient_quota"


class Rejected(GatewayError):
    """The upstream said that the request is wrong: its status and words are the answer."""

    type = "invalid_request_error"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the upstream refused the request with status {status}")
        self.status = status
        self.body = body

    def encode(self) -> bytes:
        if is_error(self.body):
            return self.body
        return encode_error(read_error(self.status, self.body).message, self.type)


class UpstreamFailed(GatewayError):
    status = 502
    type = "upstream_error"
    code = "upstream_error"


class UpstreamTimeout(UpstreamFailed):
    status = 504
    code = "upstream_timeout"


class Unavailable(GatewayError):
    """`retry_after_s` [s] is told to the client, rounded up to whole seconds."""

    status = 503
    type = "unavailable"
    code = "unavailable"

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, code: str | None = None
    ) -> None:
        seconds = str(max(1, math.ceil(retry_after_s)))
        super().__init__(message, code=code, headers=(("retry-after", seconds),))


class ShuttingDown(Unavailable):
    code = "shutting_down"


class ClientGone(GatewayError):
    status = 499
    code = "client_gone"
