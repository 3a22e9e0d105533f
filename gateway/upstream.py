"""One exchange with an upstream: a POST out, a reply in, and a deadline on every wait between.

Knows HTTP, time and bytes. Leaves out what the bytes mean and whether to try again: `routing`.
The timer of a reply is set lazily: a chunk costs one assignment, not one timer.
"""

import asyncio
import contextlib
import email.utils
import io
import math
import time
from collections.abc import Mapping
from functools import lru_cache
from ssl import SSLContext
from typing import Literal, Self

import aiohttp
import msgspec

from gateway.config import Deadlines, Price
from model.protocol.sse import Event, EventReader, EventTooLarge, encode_event

ERROR_BYTES = 65_536  # of an error's body, which is all that a client is ever shown
EVENT_BYTES = 1 << 20
READ_BUFFER = 65_536
TOLD_STATUSES = {401, 403, 404, 429}  # what an operator can mend: key, rights, model, quota

Kind = Literal[
    "connect",
    "reset",
    "timeout_connect",
    "timeout_headers",
    "timeout_first_token",
    "timeout_idle",
    "timeout_total",
    "status",
    "malformed",
    "truncated",
    "too_large",
    "open",
]


class UpstreamError(Exception):
    """An attempt that gave no answer.

    `status`, `retry_after` [s] and `body` are what the upstream said (kind "status"). Kind "open":
    nobody was asked, as every breaker was open; `retry_after` is when one will be half open. Its
    status is 429 where all said so before and nothing else is wrong with them.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind: Kind = kind
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.body = body

    @property
    def outcome(self) -> str:
        """The kind, of a status with its class; one of a closed set."""
        if self.kind != "status" or self.status is None:
            return self.kind
        if self.status in TOLD_STATUSES:
            return f"status_{self.status}"
        return f"status_{self.status // 100}xx"

    @property
    def is_timeout(self) -> bool:
        return self.kind.startswith("timeout")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A model at an upstream: where it is, what it is called there and what it costs."""

    name: str  # the upstream's name in the config
    model: str
    base_urls: tuple[str, ...]  # replicas of one another, each up to and with /v1
    headers: dict[str, str] = {}
    ssl: SSLContext | None = None
    deadlines: Deadlines = Deadlines()
    can_continue: bool = False
    tokenizer: str = ""
    image_tokens: int = 0
    prices: tuple[Price, ...] = ()


class Post(msgspec.Struct, frozen=True):
    """What is sent: `path` follows the base URL."""

    path: str
    body: bytes
    headers: Mapping[str, str] = {}
    is_streamed: bool = False


class Reply:
    """Status, headers, and a body that is read once, as events or whole, inside `async with`.

    A stream must bring its first token by `deadlines.first_token`, counted from the request; who
    knows what a token is says `began`, and from then on no gap between bytes may pass
    `deadlines.idle`. Waiting for a slow reader of ours is no gap.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        deadlines: Deadlines,
        started: float,
        is_streamed: bool,
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._loop = asyncio.get_running_loop()
        self._idle = deadlines.idle
        self._total_at = started + deadlines.total
        self._gap: float | None = None
        self._kind: Kind = "timeout_first_token"
        self._due = started + deadlines.first_token if is_streamed else self._total_at
        self._timer: asyncio.TimerHandle | None = None
        self._is_waiting = False
        self._is_first = True
        self._reader = EventReader(EVENT_BYTES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._reset_timer()
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def began(self) -> None:
        """The first token is here: from now on the idle gap counts."""
        self._kind, self._gap = "timeout_idle", self._idle
        self._reset_timer()

    def ending(self, seconds: float) -> None:
        """All that matters was said: the end of the body must come within `seconds`."""
        self._kind, self._gap = "timeout_idle", None
        self._due = self._loop.time() + seconds
        self._reset_timer()

    async def next_events(self) -> list[Event]:
        """The server-sent events that came together; none at the end. Raises UpstreamError.

        What was answered as a whole, though a stream was asked for, is one event.
        """
        events: list[Event] = []
        left = 2 * EVENT_BYTES  # comments keep a stream alive, but nobody needs megabytes of them
        while not events and (chunk := await self._receive()):
            if (left := left - len(chunk)) < 0:
                raise UpstreamError("malformed", "a stream without events")
            if self._is_first and chunk.lstrip().startswith(b"{"):  # no line of a stream does
                data = (chunk + await self.read(EVENT_BYTES)).strip()
                return [Event(encode_event(data), data)]
            self._is_first = False
            try:
                events = list(self._reader.feed(chunk))
            except EventTooLarge as error:
                raise UpstreamError("malformed", str(error)) from error
        return events

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError, of kind "too_large" beyond `limit` bytes."""
        body = bytearray()  # thousands of parts would leave the heap in pieces, and large
        while not self._response.content.at_eof():
            body += await self._receive()
            if len(body) > limit:
                raise UpstreamError("too_large", f"the body is longer than {limit} bytes")
        return bytes(body)

    async def drain(self, seconds: float) -> None:
        """Give the rest of the body a moment to come, so that the connection can be used again."""
        if self._response.content.at_eof():
            return
        self.ending(seconds)
        with contextlib.suppress(UpstreamError):
            while await self._receive():
                pass

    async def _receive(self) -> bytes:
        if self._gap is not None:
            self._due = self._loop.time() + self._gap
        if self._timer is None:
            self._timer = self._loop.call_at(min(self._due, self._total_at), self._check)
        self._is_waiting = True
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError("reset", _text(error)) from error
        finally:
            self._is_waiting = False

    def _check(self) -> None:
        self._timer = None
        if not self._is_waiting:
            return  # the next read sets the timer anew
        due = min(self._due, self._total_at)
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check)
            return
        kind = "timeout_total" if due == self._total_at else self._kind
        self._response.content.set_exception(UpstreamError(kind))

    def _reset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Client:
    """The one HTTP session of the process. Retries nothing, keeps no cookies, follows nobody."""

    def __init__(self, connections: int = 2048) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "content-type": "application/json"},
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=READ_BUFFER,
        )

    async def close(self) -> None:
        await self._session.close()

    async def open(self, target: Target, base_url: str, post: Post) -> Reply:
        """Send `post` and wait for status and headers. Raises UpstreamError, not for a status.

        What is not streamed has its headers only once the answer is complete, so there `total`
        bounds this wait too.
        """
        limits = target.deadlines
        started = asyncio.get_running_loop().time()
        wait = min(limits.headers, limits.total) if post.is_streamed else limits.total
        try:
            async with asyncio.timeout_at(started + wait):
                response = await self._session.post(
                    base_url + post.path,
                    data=_payload(post.body),
                    headers={**target.headers, **post.headers},
                    ssl=target.ssl or True,
                    timeout=_connect_within(limits.connect),
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error, post.is_streamed) from error
        return Reply(response, limits, started, post.is_streamed)

    async def is_alive(self, target: Target, base_url: str, seconds: float) -> bool:
        """Does the upstream answer the unpaid GET /models within `seconds`, even with a no?"""
        try:
            async with self._session.get(
                base_url + "/models",
                headers=target.headers,
                ssl=target.ssl or True,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, ValueError):
            return False


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds until the upstream wants to be asked again, if it says so.

    Read are `retry-after-ms` and Retry-After as seconds or as a date (RFC 9110, 10.2.3); `now` is
    Unix time.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=seconds)


def _payload(body: bytes) -> bytes | io.BytesIO:
    # aiohttp writes bytes in one go and warns beyond 1 MiB; a BytesIO it writes piece by piece.
    return body if len(body) < 1 << 20 else io.BytesIO(body)


def _failure(error: Exception, is_streamed: bool) -> UpstreamError:
    kind: Kind = "reset"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        kind = "timeout_connect"
    elif isinstance(error, TimeoutError):
        kind = "timeout_headers" if is_streamed else "timeout_total"
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL | ValueError):
        kind = "connect"
    elif isinstance(error, aiohttp.ClientResponseError):
        return UpstreamError("malformed", "no HTTP")  # its own text quotes what came
    return UpstreamError(kind, _text(error))


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
