"""The fault upstream does on the wire what its table says; seen by a socket, not by our client."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from loadtests.faults import FAULTS, FaultServer

pytestmark = pytest.mark.anyio

SCALE = 0.001


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(SCALE) as server:
        yield server


async def exchange(server: FaultServer, request: bytes) -> bytes:
    """All that comes until the upstream closes; it is told to only if its fault does not."""
    port = int(server.base_url.split(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def ask(server: FaultServer, model: str, stream: bool = True, prefill: str = "") -> bytes:
    messages = [{"role": "user", "content": "Count."}]
    messages += [{"role": "assistant", "content": prefill}] if prefill else []
    body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    return await exchange(server, head.encode() + body)


def num_words(answer: bytes) -> int:
    return answer.count(b'"content": "word')


@pytest.mark.parametrize(
    ("model", "words", "ends"),
    [
        ("ok", 60, b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("slow-first-token", 60, b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("stall", 60, b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("cut", 40, b"}\n\n\r\n"),
        ("truncated", 40, b"}\n\n\r\n0\r\n\r\n"),
        ("malformed", 59, b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("no-done", 60, b"}\n\n\r\n"),
        ("silent", 0, b""),
    ],
)
async def test_streams(server: FaultServer, model: str, words: int, ends: bytes) -> None:
    answer = await ask(server, model)
    assert num_words(answer) == words
    assert answer.endswith(ends)
    assert (b'"finish_reason": "stop"' in answer) == (words > 40)


@pytest.mark.parametrize(
    ("model", "first_line"),
    [
        ("rate-limit", b"HTTP/1.1 429"),
        ("error-500", b"HTTP/1.1 500"),
        ("error-503", b"HTTP/1.1 503"),
        ("context-length", b"HTTP/1.1 400"),
        ("content-policy", b"HTTP/1.1 400"),
        ("nobody", b"HTTP/1.1 404"),
    ],
)
async def test_refusals(server: FaultServer, model: str, first_line: bytes) -> None:
    for stream in (True, False):
        answer = await ask(server, model, stream)
        assert answer.startswith(first_line)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert (b"retry-after: 0.002" in answer) == (model == "rate-limit")


async def test_reset(server: FaultServer) -> None:
    with pytest.raises(ConnectionResetError):
        await ask(server, "reset")


@pytest.mark.parametrize("model", ["cut", "malformed"])
async def test_plain_bodies(server: FaultServer, model: str) -> None:
    head, _, body = (await ask(server, model, stream=False)).partition(b"\r\n\r\n")
    length = int(head.rpartition(b"content-length: ")[2])
    assert (len(body) == length) == (model == "malformed")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(body)


async def test_once(server: FaultServer) -> None:
    for tag in ("a", "b"):
        assert b" 500 " in await ask(server, f"error-500-once:{tag}")
        assert num_words(await ask(server, f"error-500-once:{tag}")) == 60
    assert [seen.nth for seen in server.seen] == [1, 2, 1, 2]


async def test_a_prefill_is_continued_or_refused(server: FaultServer) -> None:
    assert num_words(await ask(server, "ok", prefill="word0 word1 ")) == 58
    assert b" 400 " in await ask(server, "no-prefill", prefill="word0 ")
    assert num_words(await ask(server, "no-prefill")) == 60


async def test_routes(server: FaultServer) -> None:
    async def get(path: str) -> Any:
        answer = await exchange(server, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    assert {it["id"] for it in (await get("/v1/models"))["data"]} == FAULTS.keys()
    await ask(server, "ok")
    assert [it["model"] for it in await get("/faults/seen")] == ["ok"]
    assert "error" in await get("/nowhere")


async def test_down_and_up_again(server: FaultServer) -> None:
    await exchange(server, b"POST /faults/down?seconds=100 HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionRefusedError):
        await ask(server, "ok")
    await server._outage
    assert num_words(await ask(server, "ok")) == 60
