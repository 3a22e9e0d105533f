"""The client's side of one request: body in, answer out, and what may happen in between.

Status and headers of a stream wait for the first chunk, at most `first_event_s`; then comments keep
the client until there is one. A client who leaves, or a gateway that ends, cancels the one task
that does the work; why is in `reason`, so nobody has to guess from a CancelledError.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.call import Call
from gateway.config import Server
from gateway.errors import BodyTooLarge, ClientGone, EncodedBody, GatewayError, SlowClient
from model.protocol.sse import HEARTBEAT, encode_event

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the chunks back
]
JSON_HEADERS = [(b"content-type", b"application/json")]
PLAIN = (("accept-encoding", "identity"),)
CLOSE = (("connection", "close"),)  # after a body that is not read to its end
DISCARD_BYTES, DISCARD_S = 64 << 20, 2.0  # of a body that is too large


class Exchange:
    """Made in the task that answers; `abort` may be called from anywhere in the loop."""

    def __init__(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        self.call = call
        self.reason: GatewayError | None = None
        self.heartbeats = 0
        self._receive = receive
        self._send = send
        self._server: Server = scope["app"].state.setup.config.server
        self._lost: list[Callable[[], None]] | None = scope.get("extensions", {}).get("lost")
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._is_started = False
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    def abort(self, reason: GatewayError) -> None:
        """End the request for this reason: settled as it is, told to the client if there is one."""
        if self.reason is None and self._task is not None:
            self.reason = reason
            self.call.outcome, self.call.status = reason.code or reason.type, reason.status
            self._task.cancel()

    async def answer(self, chunks: AsyncGenerator[bytes]) -> None:
        """Send what `chunks` gives. Raises GatewayError while nothing was sent yet."""
        unwatch = self._watch()
        try:
            await self._answer(chunks)
        finally:
            unwatch()
            if self._timer is not None:
                self._timer.cancel()

    async def _answer(self, chunks: AsyncGenerator[bytes]) -> None:
        try:
            await (self._stream(chunks) if self.call.stream else self._whole(chunks))
        except asyncio.CancelledError:
            if self.reason is None or self._task is None:
                raise
            self._task.uncancel()
            await self._fail(self.reason)
        except GatewayError as error:
            await self._fail(error)

    def _watch(self) -> Callable[[], object]:
        """Be told when the client leaves, by our own protocol or by waiting for it as ASGI has it;
        gives what ends that."""
        if self._lost is None:
            return self._loop.create_task(self._wait_for_loss()).cancel
        self._lost.append(self._leave)
        return partial(self._lost.remove, self._leave)

    async def _wait_for_loss(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.abort(ClientGone("the client left"))

    async def _whole(self, chunks: AsyncGenerator[bytes]) -> None:
        async with aclosing(chunks):
            body = b"".join([chunk async for chunk in chunks])
        await self._start(JSON_HEADERS, len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def _stream(self, chunks: AsyncGenerator[bytes]) -> None:
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._server.first_event_s, self._silence)
        async with aclosing(chunks):
            async for chunk in chunks:
                if self._beat is not None:
                    await self._beat_is_over()
                if not self._is_started:
                    await self._start(STREAM_HEADERS)
                self._last = self._loop.time()
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._end(b"")

    async def _end(self, body: bytes) -> None:
        """The last bytes; no heartbeat may come after them."""
        await self._beat_is_over()
        if self._timer is not None:
            self._timer.cancel()
        await self._send({"type": "http.response.body", "body": body})

    async def _beat_is_over(self) -> None:
        if self._beat is not None:
            await asyncio.wait({self._beat})  # not awaited itself, lest our end cancel it

    def _silence(self) -> None:
        """Set once, not per chunk: it looks when the last chunk was and comes back later."""
        patience = self._server.heartbeat_s if self._is_started else self._server.first_event_s
        due = self._last + patience
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._silence)
        else:
            self._beat = self._loop.create_task(self._send_heartbeat())

    async def _send_heartbeat(self) -> None:
        if not self._is_started:
            await self._start(STREAM_HEADERS)
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        self.heartbeats += 1
        self._beat = None
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._server.heartbeat_s, self._silence)

    async def _start(self, headers: list[tuple[bytes, bytes]], length: int | None = None) -> None:
        self._is_started = True
        more = [(name.encode(), value.encode()) for name, value in self.call.reply_headers]
        if self.call.attempts and (ignored := self.call.attempts[-1].ignored):
            more.append((b"x-ignored-params", ignored.encode()))
        if length is not None:
            more.append((b"content-length", b"%d" % length))
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [*headers, *more]}
        )

    async def _fail(self, error: GatewayError) -> None:
        if isinstance(error, ClientGone):
            return
        if not self._is_started:
            raise error
        await self._end(encode_event(error.encode()))


async def read_body(scope: Scope, receive: Receive, server: Server) -> bytes:
    """The whole body. Raises EncodedBody, BodyTooLarge, SlowClient, or ClientGone."""
    coding = scope["fields"].get("content-encoding", "identity")
    if coding.lower() != "identity":
        text = f"a body in content-encoding {coding!r} is not read here: send it plain"
        raise EncodedBody(text, param="body", headers=PLAIN)
    limit = server.max_body_bytes
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            if int(value) <= DISCARD_BYTES and b"expect" not in dict(scope["headers"]):
                await discard(receive)
            raise too_large(limit)
    message: Any = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _read_rest(body, receive, server)
    elif message["type"] == "http.disconnect":
        raise ClientGone("the client left")
    if len(body) > limit:
        await discard(receive)
        raise too_large(limit)
    return body


async def discard(receive: Receive) -> None:
    """Read on for a moment: most clients look for an answer only when they have sent all they have,
    and a connection that is closed under their hands tells them nothing."""
    left = DISCARD_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while left > 0:
                message: Any = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    break


async def _read_rest(first: bytes, receive: Receive, server: Server) -> bytes:
    parts, size = [first], len(first)
    try:
        async with asyncio.timeout(server.body_timeout_s):
            while size <= server.max_body_bytes:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("the client left")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if not message.get("more_body"):
                    break
    except TimeoutError:
        late = f"the body did not come within {server.body_timeout_s:g} s"
        raise SlowClient(late, param="body", headers=CLOSE) from None
    return b"".join(parts)


def too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes", param="body", headers=CLOSE)
