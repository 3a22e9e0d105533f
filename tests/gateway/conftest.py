"""A gateway on a real socket in the test's own loop, before an upstream that does as it is told."""

import asyncio
import copy
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import uvicorn

from gateway.app import App
from gateway.config_file import Loaded, parse
from gateway.edge import Listener
from gateway.state import State, open_state

Send = Callable[[dict[str, Any]], Awaitable[None]]
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "its-own-name"}


BODY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "its-own-name",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Paris"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return b"data: " + json.dumps({**CHUNK, "choices": choices, **more}).encode() + b"\n\n"


def word(text: str) -> bytes:
    return event([{"index": 0, "delta": {"content": text}, "finish_reason": None}])


FINISH = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event([], usage=BODY["usage"])
DONE = b"data: [DONE]\n\n"
ANSWER = (word("Paris"), word(" it"), word(" is"), FINISH, USAGE, DONE)


@dataclass
class Upstream:
    """Answers `pieces` (bytes to send, events to wait for) to streams and `body` to the rest."""

    pieces: list[bytes | asyncio.Event] = field(default_factory=lambda: list(ANSWER))
    body: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(BODY))
    status: int = 200
    reply_headers: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        if scope["method"] == "GET":
            await self._plain(send, {"object": "list", "data": []})
            return
        body = json.loads(raw)
        self.requests.append(body)
        self.asked.set()
        if not body.get("stream") or self.status != 200:
            await self._plain(send, self.body)
            return
        watch = asyncio.create_task(self._watch(receive))
        try:
            await self._stream(send)
        finally:
            watch.cancel()

    async def _watch(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        for piece in self.pieces:
            if isinstance(piece, asyncio.Event):
                piece.set()

    async def _plain(self, send: Send, body: dict[str, Any]) -> None:
        headers = [(b"content-type", b"application/json")]
        headers += [(k.encode(), v.encode()) for k, v in self.reply_headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _stream(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in self.pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[str]:
    """The server's URL, while it serves on a free port."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


@dataclass
class House:
    """A running gateway, its upstream, and a client for it."""

    state: State
    upstream: Upstream
    url: str
    http: aiohttp.ClientSession
    listener: Listener

    async def chat(self, stream: bool = False, **more: Any) -> aiohttp.ClientResponse:
        headers = more.pop("headers", None)
        body = {
            "model": "town",
            "messages": [{"role": "user", "content": "capital of France?"}],
            "stream": stream,
            **more,
        }
        reply = await self.http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
        if not stream:
            await reply.read()
        return reply

    async def ask(self, method: str, path: str, **more: Any) -> aiohttp.ClientResponse:
        """A reply that was read to its end."""
        reply = await self.http.request(method, self.url + path, **more)
        await reply.read()
        return reply

    async def rows(self) -> list[dict[str, Any]]:
        """The ledger, as it is in the store."""
        await self.state.ledger.flush()

        def read(connection: Any) -> list[dict[str, Any]]:
            found = connection.exec_driver_sql("SELECT * FROM ledger ORDER BY id")
            return [dict(row._mapping) for row in found]

        return await self.state.store.read(read)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for name, value in over.items():
        is_table = isinstance(value, dict) and isinstance(both.get(name), dict)
        both[name] = merged(both[name], value) if is_table else value
    return both


Opener = Callable[..., Any]


@pytest.fixture
def open_house(tmp_path: Path, upstream: Upstream) -> Opener:
    """`async with open_house({...config over the usual one...}) as house`."""

    @asynccontextmanager
    async def opener(over: dict[str, Any] | None = None) -> AsyncIterator[House]:
        async with AsyncExitStack() as stack:
            plain = uvicorn.Config(
                upstream,
                lifespan="off",
                log_config=None,
                ws="none",
                timeout_graceful_shutdown=1,
            )  # type: ignore[arg-type]
            upstream.url = await stack.enter_async_context(running(uvicorn.Server(plain)))
            loaded = usual(upstream.url, tmp_path, over or {})
            state = await stack.enter_async_context(open_state(loaded))
            listener = Listener(App(state), loaded.config.server, state.drain, state.metrics.refuse)
            url = await stack.enter_async_context(running(listener))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            yield House(state, upstream, url, http, listener)

    return opener


def usual(url: str, folder: Path, over: dict[str, Any]) -> Loaded:
    """One family `town` with one release over the upstream at `url`."""
    tree = {
        "server": {"drain_s": 0.5},
        "upstreams": {"up": {"base_url": f"{url}/v1", "model": "up-model"}},
        "families": {"town": {"labels": {"production": "town-1"}}},
        "releases": {"town-1": {"family": "town", "upstream": "up"}},
        "retries": {"backoff_s": 0.001, "backoff_max_s": 0.01},
        "store": {"url": f"sqlite:///{folder}/store.db", "journal": f"{folder}/journal"},
    }
    return Loaded(parse(merged(tree, over)), folder / "gateway.toml", {}, {})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def say() -> SimpleNamespace:
    """The events that an upstream may be told to send."""
    return SimpleNamespace(word=word, event=event, FINISH=FINISH, USAGE=USAGE, DONE=DONE)
