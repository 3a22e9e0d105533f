"""The bounds below the application, on a bare socket, and the server's manners at its end."""

import asyncio
import signal
import time
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

SERVER = {"max_header_bytes": 2000, "max_headers": 10, "header_timeout_s": 0.2}


async def exchange(url: str, *pieces: bytes) -> bytes:
    """Send the pieces, read to the end of the connection."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_what_is_no_request_is_answered_and_ended(open_house: Any) -> None:
    start = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
    async with open_house({"server": SERVER}) as house:
        for status, pieces in (
            (400, [b"nonsense\r\n\r\n"]),
            (400, [start + b"content-length: 1\r\ncontent-length: 2\r\n\r\n"]),
            (400, [start + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"]),
            (408, [b"GET /heal"]),
            (408, [b"\r\n"]),
            (408, [start, b"x-slow: y\r\n"]),
            (431, [start + b"a: b\r\n" * 20 + b"\r\n"]),
            (431, [start + b"a: " + b"b" * 3000 + b"\r\n\r\n"]),
            (431, [start + b"a: " + b"b" * 1500, b"b" * 1500]),
            (431, [b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"]),
        ):
            reply = await exchange(house.url, *pieces)
            assert reply.startswith(b"HTTP/1.1 %d " % status), (pieces, reply)
            assert b'{"error":{"message":' in reply
        text = await (await house.ask("GET", "/metrics")).text()
        assert 'glassgate_refused_total{code="headers_too_large",status="4xx"} 4.0' in text
        assert 'glassgate_refused_total{code="slow_client",status="4xx"} 3.0' in text


async def test_a_slow_head_does_not_hurt_a_busy_connection(open_house: Any) -> None:
    one = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with open_house({"server": SERVER}) as house:
        reply = await exchange(house.url, one + one[:20], one[20:], last)
        assert reply.count(b"HTTP/1.1 200 OK") == 3


async def test_a_slow_body_is_ended(open_house: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90\r\n\r\n"
    async with open_house({"server": {"body_timeout_s": 0.1}}) as house:
        reply = await exchange(house.url, head, b"{")
        assert reply.startswith(b"HTTP/1.1 408 ")


async def test_a_body_larger_than_said_is_not_read(open_house: Any) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    async with open_house({"server": {"max_body_bytes": 100}}) as house:
        reply = await exchange(house.url, head + b"content-length: 1000000\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 413 ")
        chunks = b"transfer-encoding: chunked\r\n\r\n" + (b"40\r\n" + b"x" * 64 + b"\r\n") * 3
        assert (await exchange(house.url, head + chunks)).startswith(b"HTTP/1.1 413 ")


async def test_a_client_who_does_not_read_is_let_go(
    open_house: Any, upstream: Any, say: Any
) -> None:
    upstream.pieces = [say.word("x" * 100_000)] * 400
    async with open_house({"server": {"write_timeout_s": 0.2}}) as house:
        reply = await house.chat(stream=True)
        assert reply.status == 200
        async with asyncio.timeout(10):
            await upstream.left.wait()
        reply.close()


async def test_the_end_lets_streams_finish(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.word("is"), say.FINISH, say.DONE]
    async with open_house({"server": {"drain_s": 10}}) as house:
        reply = await house.chat(stream=True)
        await reply.content.readline()
        house.listener.handle_exit(signal.SIGTERM, None)
        async with asyncio.timeout(5):
            while (await house.ask("GET", "/health/ready")).status == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await house.ask("GET", "/health/live")).status == 200
        assert (await house.ask("POST", "/v1/embeddings", data=b"")).status == 503
        go.set()
        assert (await reply.text()).endswith("data: [DONE]\n\n")


async def test_what_outlives_the_grace_is_told_and_settled(
    open_house: Any, upstream: Any, say: Any
) -> None:
    upstream.pieces = [say.word("Par"), asyncio.Event()]
    async with open_house({"server": {"drain_s": 0.1}}) as house:
        reply = await house.chat(stream=True)
        house.listener.handle_exit(signal.SIGINT, None)
        assert '"code":"shutting_down"' in await reply.text()
        (row,) = await house.rows()
        assert (row["outcome"], row["completion_tokens"]) == ("shutting_down", 1)


async def test_a_second_signal_does_not_wait(open_house: Any, upstream: Any, say: Any) -> None:
    upstream.pieces = [say.word("Par"), asyncio.Event()]
    async with open_house({"server": {"drain_s": 3600}}) as house:
        reply = await house.chat(stream=True)
        for _ in range(2):
            house.listener.handle_exit(signal.SIGINT, None)
        started = time.monotonic()
        assert '"code":"shutting_down"' in await reply.text()
        assert time.monotonic() - started < 60
