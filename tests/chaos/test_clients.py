"""A thousand clients who never finish to ask, or never stay to hear, beside fifty who do."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable

import pytest

from .town import House, until

pytestmark = [pytest.mark.services, pytest.mark.anyio]

NUM = 1000


async def drip(house: House) -> float:
    """Send a header byte by byte until the gateway has had enough; the seconds that it took."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    with contextlib.suppress(ConnectionError):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx-slow: ")
        while not reader.at_eof():
            writer.write(b"a")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1000), 1.0)
    writer.close()
    return time.monotonic() - start


async def test_slow_loris(move_in: Callable[..., House], note: Callable[..., None]) -> None:
    house = move_in()
    async with house.load() as healthy:
        await asyncio.sleep(8)
    async with house.load() as load:
        took = await asyncio.gather(*(drip(house) for _ in range(NUM)))
        await asyncio.sleep(2)
    note("1,000 connections that drip their headers", house, healthy, load)
    assert not load.failed
    assert max(took) <= 10  # header_timeout_s is 3
    assert load.p99 <= 3 * healthy.p99  # a thousand clients are on these processors, too


async def leave(house: House, number: int) -> None:
    """Ask for a long stream, take the first bytes of it, go."""
    body = {"model": "m", "stream": True, "max_tokens": 2000, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": f"leaver {number}"}]
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    head += f"x-request-id: leaver-{number}\r\nauthorization: {house.auth['authorization']}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"data: ")
    writer.transport.abort()


async def test_clients_who_leave(move_in: Callable[..., House], note: Callable[..., None]) -> None:
    house = move_in()
    async with house.load() as healthy:
        await asyncio.sleep(8)
    async with house.load() as load:
        for wave in range(10):
            await asyncio.gather(*(leave(house, wave * 100 + n) for n in range(100)))
            await asyncio.sleep(0.5)
        await asyncio.sleep(2)
    load.num_others = NUM
    note("1,000 clients who leave in mid-stream", house, healthy, load)
    assert not load.failed

    def left() -> list[str] | None:
        rows = [row for row in house.rows() if row["request_id"].startswith("leaver")]
        return [row["outcome"] for row in rows] if len(rows) == NUM else None

    assert set(until(left, "each is in the ledger")) == {"client_gone"}
