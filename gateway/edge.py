"""The connection below the application: what uvicorn does not bound is bounded here.

Number and bytes of headers, the time in which they must come, the time for which a client may
leave written bytes unread. Also the server's manners at its end. What a request says is for `app`.
"""

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.config import Server
from model.protocol.errors import encode_error

LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_FOUR = re.compile(r"127(\.\d{1,3}){3}")
CLOSE_S = 2  # for connections whose streams were told that they end


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or bool(_FOUR.fullmatch(host))


class BoundedProtocol(HttpToolsProtocol):
    """`bounds` and `refused` (hears the code of each refusal) are set on a subclass: uvicorn makes
    the instances and passes nothing of ours."""

    bounds: Server
    refused: Callable[[str], object]
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _lost: list[Callable[[], None]]
    _is_in_head = False
    _complaint = (400, "bad_http", "this is not a request of HTTP/1.1")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._lost = []
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)
        for tell in self._lost:
            tell()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            # The parser hands a header over when it is whole: an endless one is seen only here.
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.max_header_bytes:
                self._complain_of("bytes of headers", self.bounds.max_header_bytes)
                self.send_400_response("")
        if self._is_in_head or self.cycle is None or self.cycle.response_complete:
            self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Cheaper than a task that waits in `receive`, for every request and mostly in vain.
        self.scope["extensions"] = {"lost": self._lost}  # type: ignore[dict-item]
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._disarm()
        num_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.headers) > self.bounds.max_headers:
            self._complain_of("headers", self.bounds.max_headers)
        elif num_bytes > self.bounds.max_header_bytes:
            self._complain_of("bytes of headers", self.bounds.max_header_bytes)
        else:
            super().on_headers_complete()
            return
        raise ValueError  # the parser stops and send_400_response answers

    def _complain_of(self, what: str, limit: int) -> None:
        self._complaint = (431, "headers_too_large", f"more than {limit} {what}")

    def send_400_response(self, msg: str) -> None:
        """What is no request gets its answer here, as no application will see it."""
        if self.transport.is_closing():
            return
        status, code, message = self._complaint
        self.refused(code)
        body = encode_error(message, "invalid_request_error", code=code)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.bounds.header_timeout_s, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._complaint = (408, "slow_client", "the headers of the request did not come in time")
        self.send_400_response("")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self.bounds.write_timeout_s, self._let_go)

    def _let_go(self) -> None:
        self.refused("slow_reader")
        self.transport.abort()  # not close, which would wait for the reader who does not read

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


class Listener(uvicorn.Server):
    """uvicorn, except that its end begins with `drain(is_forced)` while it still listens.

    The first SIGINT or SIGTERM starts the end, a second one makes `is_forced()` true.
    """

    def __init__(
        self,
        app: object,
        bounds: Server,
        drain: Callable[[Callable[[], bool]], Awaitable[None]],
        refused: Callable[[str], object],
    ) -> None:
        self.drain = drain
        own = {"bounds": bounds, "refused": staticmethod(refused)}
        protocol = type("Protocol", (BoundedProtocol,), own)
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                host=bounds.host,
                port=bounds.port,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(bounds.idle_timeout_s),
                timeout_graceful_shutdown=CLOSE_S,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again at the end, before the gateway has closed its own."""
        caught = (signal.SIGINT, signal.SIGTERM)
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in caught}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.drain(lambda: self.force_exit)
        await super().shutdown(sockets)
