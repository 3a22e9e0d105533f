"""The ASGI application: the table of routes, and what holds for every request.

From outside in: the request's id, CORS, errors as responses, the Host, the route, its scope, the
endpoint. What happens to a request for a model is `chat`'s; bounds below HTTP are `edge`'s.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Router, request_response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import admin, chat, config_file, releases, responses, web
from gateway.auth import require
from gateway.call import Route
from gateway.config import Server
from gateway.edge import LOOPBACK, is_loopback
from gateway.errors import (
    BadRequest,
    ClientGone,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    ShuttingDown,
    Unavailable,
)
from gateway.logs import log_request
from gateway.reply import Exchange, read_body
from gateway.request import read_call
from gateway.retrieval import api as retrieval
from gateway.state import State
from gateway.trace import join, request_id
from gateway.tracing import api as tracing

log = logging.getLogger("glassgate")

QUIET = {"/health/live", "/health/ready", "/metrics"}  # asked all the time: not logged
Endpoint = Callable[[Request], Awaitable[Response]]


class Door(NamedTuple):
    """A route and the scope that opens it; `open` needs no key."""

    method: str
    path: str
    scope: str
    endpoint: "Endpoint | Model"


class Model:
    """The endpoint of a route that a model answers: body in, the spine, answer out."""

    def __init__(self, route: Route) -> None:
        self.route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: State = scope["app"].state
        server = state.setup.config.server
        if state.is_closed:
            raise ShuttingDown("the gateway is shutting down", retry_after_s=5)
        if len(state.exchanges) >= server.max_in_flight:
            raise RateLimited("too many requests at once", headers=(("retry-after", "1"),))
        raw = await read_body(scope, receive, server)
        call = read_call(self.route, scope["request_id"], raw, scope["fields"], scope["principal"])
        call.trace = join(scope["fields"].get("traceparent", ""), state.setup.config.traces.sample)
        call.reply_headers.append(("traceresponse", call.trace.header))
        scope["call"] = call
        exchange = Exchange(call, scope, receive, send)
        state.exchanges.add(exchange)
        try:
            say = responses.answer if self.route == "responses" else chat.answer
            await exchange.answer(say(call, state))
        finally:
            state.exchanges.discard(exchange)
            state.metrics.heartbeats.inc(exchange.heartbeats)


async def list_models(request: Request) -> Response:
    return _json({"object": "list", "data": _models(request)})


async def show_model(request: Request) -> Response:
    name = request.path_params["name"]
    for model in _models(request):
        if model["id"] == name:
            return _json(model)
    raise releases.unknown(name)


def _models(request: Request) -> list[dict[str, Any]]:
    state: State = request.app.state
    mine = request.scope["principal"].families
    return releases.model_list(state.setup.config, state.mirror, mine)


async def live(request: Request) -> Response:
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    if not request.app.state.is_ready:
        raise Unavailable("not ready")
    return _json({"status": "ok"})


async def metrics(request: Request) -> Response:
    """In the form that Accept names: OpenMetrics has exemplars, which lead from a bucket to a
    trace."""
    state: State = request.app.state
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(state.metrics.registry), media_type=kind)


async def show_config(request: Request) -> Response:
    state: State = request.app.state
    return _json({"object": "config", "data": config_file.shown(state.setup.loaded)})


DOORS = (
    Door("POST", "/v1/chat/completions", "chat", Model("chat")),
    Door("POST", "/v1/responses", "responses", Model("responses")),
    Door("POST", "/v1/completions", "completions", Model("completions")),
    Door("POST", "/v1/embeddings", "embeddings", Model("embeddings")),
    Door("GET", "/v1/models", "infer", list_models),
    Door("GET", "/v1/models/{name:path}", "infer", show_model),
    Door("GET", "/v1/traces/{name:path}", "infer", tracing.show),
    Door("GET", "/health/live", "open", live),
    Door("GET", "/health/ready", "open", ready),
    Door("GET", "/metrics", "metrics", metrics),
    Door("GET", "/admin/config", "admin", show_config),
    *(Door(method, path, "files", endpoint) for method, path, endpoint in retrieval.ROUTES),
    *(Door(method, path, "admin", endpoint) for method, path, endpoint in admin.ROUTES),
    *(Door(*route) for route in web.ROUTES),
)


class App:
    """The table of routes behind the middleware, over one State."""

    def __init__(self, state: State) -> None:
        self.state = state
        guards = {door: _Guard(door) for door in DOORS}
        self._table = [StarletteRoute(d.path, it, methods=[d.method]) for d, it in guards.items()]
        self._router = Router(self._table, redirect_slashes=False)
        self._direct = {(d.method, d.path): app for d, app in guards.items() if "{" not in d.path}
        self._app: ASGIApp = self._answer
        if origins := state.setup.config.server.cors_origins:
            self._app = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["*"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        scope["fields"] = fields = read_headers(scope)
        scope["client_address"] = client_address(scope, self.state.setup.config.server)
        scope["request_id"] = name = request_id(fields.get("x-request-id", ""))
        scope["status"] = 0
        started = time.monotonic()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            if scope["path"] not in QUIET:
                status = scope["status"] or ClientGone.status
                log_request(scope, status, time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_host(scope)
            self._check_site(scope)
            await self._route(scope, receive, send)
        except GatewayError as error:
            self._count_refusal(scope, error)
            await _refuse(error, scope, receive, send)
        except HTTPException as error:
            known = {404: NotFound, 405: MethodNotAllowed}.get(error.status_code, BadRequest)
            where = f"{error.detail}: {scope['method']} {scope['path']}"
            allow = (("allow", self._methods(scope)),) if known is MethodNotAllowed else ()
            self._count_refusal(scope, refusal := known(where, headers=allow))
            await _refuse(refusal, scope, receive, send)
        except Exception:  # a fault of ours: logged whole, told to the client without details
            log.exception("request %s failed", scope["request_id"])
            failed = GatewayError("internal error", code="internal_error")
            self._count_refusal(scope, failed)
            if scope["status"]:
                raise
            await _refuse(failed, scope, receive, send)

    def _methods(self, scope: Scope) -> str:
        """What this path may be asked with, as RFC 9110 wants it said to who asked otherwise."""
        fitting = (it for it in self._table if it.matches(scope)[0] is not Match.NONE)
        return ", ".join(sorted({name for it in fitting for name in it.methods or ()}))

    def _count_refusal(self, scope: Scope, error: GatewayError) -> None:
        """Who was let in is counted where it is settled."""
        call = scope.get("call")
        if call is None or call.outcome == "running":
            self.state.metrics.refuse(error.code or error.type, error.status)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """By a look-up where the path is plain: the router tries one pattern after the other."""
        app = self._direct.get((scope["method"], scope["path"]), self._router)
        await app(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        """A page elsewhere may make a browser call us by a name of its own: it is in Host."""
        host = scope["fields"].get("host", ",").lower()
        if "," in host:
            raise BadRequest("the request needs exactly one Host header", param="host")
        server = self.state.setup.config.server
        allowed = server.allowed_hosts or (LOOPBACK if is_loopback(server.host) else ())
        name, _, port = host.rpartition(":")
        name = name if port.isdigit() else host
        if allowed and name not in allowed:
            raise BadRequest(f"this gateway is not called {name!r}", param="host")

    def _check_site(self, scope: Scope) -> None:
        """A page elsewhere may make a browser post what needs no key; the browser says so."""
        fields = scope["fields"]
        is_foreign = fields.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET"
        allowed = self.state.setup.config.server.cors_origins
        if is_foreign and not {"*", fields.get("origin", "")} & set(allowed):
            raise Forbidden("pages of other sites may not use this gateway", code="cross_site")


class _Guard:
    """Denied by default: a route is reached only by who has its scope."""

    def __init__(self, door: Door) -> None:
        self.scope = door.scope
        endpoint = door.endpoint
        self.app = endpoint if isinstance(endpoint, Model) else request_response(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.scope != "open":
            scope["principal"] = principal = await scope["app"].state.auth.authenticate(
                scope["fields"].get("authorization", ""), is_loopback(scope["client_address"])
            )
            require(principal, self.scope)
        await self.app(scope, receive, send)


def client_address(scope: Scope, server: Server) -> str:
    """Who sent the request: the peer, or whom trusted proxies name as the one before them.

    What came over loopback through a proxy that nobody declared is nobody's: "".
    """
    address: str = (scope["client"] or ("",))[0]
    hops = scope["fields"].get("x-forwarded-for", "").split(",")
    if any(hops) and address not in server.trusted_proxies:
        return "" if is_loopback(address) else address
    while hops and address in server.trusted_proxies:
        address = hops.pop().strip() or address
    return address


def read_headers(scope: Scope) -> dict[str, str]:
    """Lower-case name → value; of a name that comes twice, all values (RFC 9110, 5.3)."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


async def _refuse(error: GatewayError, scope: Scope, receive: Receive, send: Send) -> None:
    response = Response(error.encode(), error.status, media_type="application/json")
    for name, value in error.headers:
        response.headers[name] = value
    if call := scope.get("call"):
        response.headers["traceresponse"] = call.trace.header
    await response(scope, receive, send)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
