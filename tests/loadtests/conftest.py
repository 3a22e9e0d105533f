"""A server whose timing is known: it waits, speaks, and notes when it spoke."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

HEAD = b"HTTP/1.1 %d Yes\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Timed:
    """Answers every POST with `num` words, `gap_s` apart; `go_on` holds back all but the first."""

    first_s: float = 0.0
    gap_s: float = 0.0
    num: int = 4
    status: int = 200
    end: bytes = b"data: [DONE]\n\n"
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    spoke: list[list[float]] = field(default_factory=list)  # of each request …
    asked: list[bytes] = field(default_factory=list)  # … and its body
    url: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.answer(reader, writer)))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.asked.append(await reader.readexactly(length))
                await self._speak(writer)
        except (asyncio.IncompleteReadError, OSError, ValueError):
            pass
        finally:
            writer.close()

    async def _speak(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD % self.status)
        self.spoke.append(times := [])
        await asyncio.sleep(self.first_s)
        for n in range(self.num):
            if n:
                await self.go_on.wait()
                await asyncio.sleep(self.gap_s)
            times.append(time.monotonic())
            self._event(writer, {"choices": [{"delta": {"content": f"word{n} "}}]})
        usage = {"prompt_tokens": 7, "completion_tokens": self.num}
        self._event(writer, {"choices": [], "usage": usage})
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.end), self.end))

    def _event(self, writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        data = b"data: %b\n\n" % json.dumps(event).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.fixture
def timed() -> Callable[..., AbstractAsyncContextManager[Timed]]:
    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Timed]:
        it = Timed(**options)
        server = await asyncio.start_server(it.accept, "127.0.0.1", 0)
        it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield it
        finally:
            server.close()
            for task in it.tasks:
                task.cancel()
            await asyncio.gather(*it.tasks, return_exceptions=True)

    return opened
