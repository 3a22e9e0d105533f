"""The routes of the model server as one ASGI application, and the one place that answers errors."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from model.protocol.shapes import read_object
from model.server.disconnect import CancelWhenGone
from model.server.errors import BadRequest, BodyTooLarge, Loading, SlowBody, as_server_error
from model.server.parameters import ignored_header
from model.server.routes import ENDPOINTS, Handler
from model.server.served import Call, Served

MAX_BODY_BYTES = 4 << 20
# Of a body that is too large: most clients look for an answer only when they have sent all they
# have, and a connection that is closed under their hands tells them nothing.
DISCARD_BYTES, DISCARD_S = 64 << 20, 2.0
BODY_S = 30.0  # a client may take so long to send a request
GONE = 499  # nobody reads it; the number is nginx's
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass
class State:
    """What the routes share; `served` is None until the models are loaded."""

    served: Served | None = None


def make_app(state: State) -> ASGIApp:
    """The application. Until `state.served` is there every route says 503."""
    routes = [
        Route(one.path, _endpoint(state, one.handler), methods=[one.method]) for one in ENDPOINTS
    ]
    on_error = dict.fromkeys((404, 405), _refuse)
    app = Starlette(routes=routes, exception_handlers=on_error)
    app.router.redirect_slashes = False  # a path is right or it is 404
    return CancelWhenGone(app)


def error_response(error: Exception) -> Response:
    """What a client is told about `error`."""
    known = as_server_error(error)
    return Response(known.body, known.status, known.headers, "application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    return error_response(error)


def _endpoint(state: State, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request_id = request.headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        headers = {"x-request-id": request_id}
        try:
            if state.served is None:
                raise Loading("the models are being loaded")
            body = read_object(await _body(request)) if request.method == "POST" else {}
            call = Call(state.served, body, request_id, request.path_params)
            call.key = request.headers.get("authorization", "").removeprefix("Bearer ")
            response = await handler(call)
            headers |= ignored_header(call.ignored)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Exception as error:  # each becomes its response, in one place
            response = error_response(error)
        response.headers.update(headers)
        return response

    return endpoint


async def _body(request: Request) -> bytes:
    if "host" not in request.headers and request.scope["http_version"] != "1.0":
        raise BadRequest("the Host header is missing", "host")
    too_large = BodyTooLarge(f"a body may have {MAX_BODY_BYTES} bytes", "body")
    size = int(request.headers.get("content-length", 0))
    is_large = size > MAX_BODY_BYTES
    if size > DISCARD_BYTES or (is_large and "expect" in request.headers):
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(DISCARD_S if is_large else BODY_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > DISCARD_BYTES:
                    break
                if size <= MAX_BODY_BYTES:
                    body += chunk
    except TimeoutError:
        if not is_large:
            raise SlowBody(f"the body did not arrive within {BODY_S:g} s") from None
    if is_large or size > MAX_BODY_BYTES:
        raise too_large
    return bytes(body)
