"""One answer on its way to everybody who asked for it at the same time.

Whoever leaves, it goes on while anybody reads it. Every reader sees all frames from the first on,
and the same end, be it an error. It is paid once: the bill is with the oldest reader, and who
leaves hands it on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.routing.attempts import Attempt
from gateway.routing.frames import Frame

Pieces = AsyncGenerator[list[Frame]]
ENDS = ("done", "body")
Produce = Callable[[list[Attempt]], Pieces]  # makes the answer; each attempt goes into the list


class Flight:
    """`task` is what runs it. Ended by the last reader who leaves before its end."""

    def __init__(self) -> None:
        self.pieces: list[list[Frame]] = []
        self.attempts: list[Attempt] = []
        self.error: BaseException | None = None
        self.is_over = False
        self.is_left = False  # by all its readers
        self.task: asyncio.Task[None] | None = None
        self._bills: list[list[Attempt]] = []
        self._news = asyncio.Event()

    async def run(self, produce: Produce, complete: Callable[[], None]) -> None:
        """`complete` is called when all frames are here, before any reader has the last."""
        try:
            async with aclosing(produce(self.attempts)) as pieces:
                async for frames in pieces:
                    self.pieces.append(frames)
                    if frames[-1].kind in ENDS:
                        complete()
                    self._tell()
        except BaseException as error:  # whatever it is, each reader is to see it
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.is_over = True
            self._tell()

    async def read(self, bill: list[Attempt]) -> Pieces:
        """All frames from the first on, then the flight's own end."""
        self._bills.append(bill)
        seen = 0
        try:
            while True:
                news = self._news
                if seen < len(self.pieces):
                    fresh, seen = self.pieces[seen:], len(self.pieces)
                    yield [frame for frames in fresh for frame in frames]
                elif self.is_over:
                    break
                else:
                    await news.wait()
            if self.error is not None:
                raise self.error
        finally:
            if not self.is_over:
                await self._leave(bill)

    async def _leave(self, bill: list[Attempt]) -> None:
        if len(self._bills) > 1:
            self._bills = [other for other in self._bills if other is not bill]
            bill.clear()
            self._tell()
        elif self.task is not None:
            self.is_left = True
            self.task.cancel()
            await asyncio.wait([self.task])

    def _tell(self) -> None:
        if self._bills and len(self._bills[0]) != len(self.attempts):
            self._bills[0][:] = self.attempts
        news, self._news = self._news, asyncio.Event()
        news.set()
