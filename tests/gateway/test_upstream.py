"""Every wait for an upstream ends: each deadline against a socket that is silent at that point."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.config import Deadlines
from gateway.upstream import Client, Post, Reply, Target, UpstreamError, retry_after

pytestmark = pytest.mark.anyio

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = 60.0
SHORT = 0.05
STREAM = Post("/chat/completions", b"{}", is_streamed=True)
PLAIN = Post("/chat/completions", b"{}")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def patient(**seconds: float) -> Deadlines:
    """Deadlines that only those named here can break."""
    long = {"connect": LONG, "headers": LONG, "first_token": LONG, "idle": LONG, "total": LONG}
    return Deadlines(**long | seconds)


@contextlib.asynccontextmanager
async def upstream(script: Script, deadlines: Deadlines) -> AsyncIterator[tuple[Client, Target]]:
    """A client, and a target that reads one request per connection and then does `script`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        try:
            await script(reader, writer)
        except ConnectionError:
            pass  # the client has heard enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client()
    try:
        url = f"http://127.0.0.1:{port}/v1"
        yield client, Target(name="it", model="m", base_urls=(url,), deadlines=deadlines)
    finally:
        await client.close()
        server.close()


@contextlib.asynccontextmanager
async def reply_of(script: Script, deadlines: Deadlines, post: Post) -> AsyncIterator[Reply]:
    async with upstream(script, deadlines) as (client, target):  # noqa: SIM117 - needs the line
        async with await client.open(target, target.base_urls[0], post) as reply:
            yield reply


def says(*parts: bytes, then_leave: bool = False) -> Script:
    """Send `parts`, then stay silent until the client leaves."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()
        if not then_leave:
            await reader.read()

    return script


async def events(reply: Reply, tokens: int = 1) -> list[bytes]:
    """The data of the events of a stream; the first `tokens` of them count as content."""
    got = []
    while came := await reply.next_events():
        for event in came:
            if len(got) < tokens:
                reply.began()
            got.append(event.data)
    return got


async def failure(
    script: Script, deadlines: Deadlines, post: Post = STREAM, tokens: int = 1
) -> UpstreamError:
    """What becomes of a request whose answer is read to the end."""
    with pytest.raises(UpstreamError) as caught:
        async with reply_of(script, deadlines, post) as reply:
            await (events(reply, tokens) if post.is_streamed else reply.read(1000))
    return caught.value


async def test_headers() -> None:
    assert (await failure(says(), patient(headers=SHORT))).kind == "timeout_headers"


async def test_first_token() -> None:
    role = says(HEAD, chunk(b"data: role\n\n"))
    error = await failure(role, patient(first_token=SHORT), tokens=0)
    assert error.kind == "timeout_first_token"
    assert error.is_timeout


async def test_first_token_is_not_delayed_by_other_bytes() -> None:
    async def pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(chunk(b": ping\n\n"))
            await writer.drain()
            await asyncio.sleep(SHORT / 10)

    error = await failure(pings, patient(first_token=SHORT, idle=SHORT), tokens=0)
    assert error.kind == "timeout_first_token"


async def test_idle() -> None:
    first = says(HEAD, chunk(b"data: token\n\n"))
    assert (await failure(first, patient(idle=SHORT))).kind == "timeout_idle"


async def test_total_of_a_stream_that_never_ends() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(chunk(b"data: token\n\n"))
            await writer.drain()
            await asyncio.sleep(SHORT / 10)

    assert (await failure(drip, patient(total=4 * SHORT))).kind == "timeout_total"


@pytest.mark.parametrize("parts", [(), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",)])
async def test_total_of_a_plain_body(parts: tuple[bytes, ...]) -> None:
    error = await failure(says(*parts), patient(headers=SHORT, total=2 * SHORT), PLAIN)
    assert error.kind == "timeout_total"


async def open_elsewhere(port: int, deadlines: Deadlines) -> str:
    """How a connection to `port` fails."""
    async with upstream(says(), deadlines) as (client, target):
        url = f"http://127.0.0.1:{port}/v1"
        assert not await client.is_alive(target, url, 4 * SHORT)
        with pytest.raises(UpstreamError) as caught:
            await client.open(target, url, STREAM)
    return caught.value.kind


async def test_connect_to_nobody() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        assert await open_elsewhere(sock.getsockname()[1], patient()) == "connect"


async def test_connect_to_a_full_backlog() -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        assert await open_elsewhere(port, patient(connect=SHORT)) == "timeout_connect"


async def test_a_probe_of_a_silent_upstream_ends() -> None:
    async with upstream(says(), patient()) as (client, target):
        assert not await client.is_alive(target, target.base_urls[0], SHORT)


async def test_waiting_for_our_own_reader_is_no_gap() -> None:
    two = says(HEAD, chunk(b"data: a\n\n"), chunk(b"data: b\n\n"), b"0\r\n\r\n")
    got = []
    async with reply_of(two, patient(idle=SHORT), STREAM) as reply:
        while came := await reply.next_events():
            reply.began()
            got += [event.data for event in came]
            await asyncio.sleep(3 * SHORT)
    assert got == [b"a", b"b"]


async def test_ending() -> None:
    async with reply_of(says(HEAD, chunk(b"data: last\n\n")), patient(), STREAM) as reply:
        reply.began()
        reply.ending(SHORT)
        with pytest.raises(UpstreamError, match="timeout_idle"):
            await events(reply, tokens=0)


async def test_cut_and_garbage() -> None:
    cut = says(HEAD, chunk(b"data: a\n\n")[:-4], then_leave=True)
    assert (await failure(cut, patient())).kind == "reset"
    assert (await failure(says(then_leave=True), patient())).kind == "reset"
    assert (await failure(says(b"SSH-2.0-no\r\n\r\n"), patient())).kind == "malformed"
    for endless in (b"data: " + b"x" * (2 << 20), b": nothing\n\n" * (1 << 18)):
        assert (await failure(says(HEAD, chunk(endless)), patient())).kind == "malformed"


@pytest.mark.parametrize("limit", [1000, 999])
async def test_a_body_is_unpacked_and_bounded(limit: int) -> None:
    packed = gzip.compress(b"x" * 1000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with reply_of(says(head, packed), patient(), PLAIN) as reply:
        if limit == 1000:
            assert await reply.read(limit) == b"x" * 1000
        else:
            with pytest.raises(UpstreamError, match="too_large"):
                await reply.read(limit)


async def test_a_large_body_is_sent_whole() -> None:
    answer = says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    post = Post("/chat/completions", b"x" * (3 << 20))
    async with reply_of(answer, patient(), post) as reply:
        assert await reply.read(2) == b"ok"


async def test_the_connection_is_used_again() -> None:
    num_connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        writer.write(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")
        while await reader.read(1 << 16):
            writer.write(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")

    async with upstream(answer, patient()) as (client, target):
        for _ in range(3):
            async with await client.open(target, target.base_urls[0], STREAM) as reply:
                assert await events(reply) == [b"a"]
    assert num_connections == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
    ],
)
async def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=10.0) == seconds
