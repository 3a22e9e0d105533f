"""The thread that owns the engine and the embedder, and the line between it and the event loop.

A turn of the thread: take the commands that came, one step of the engine, a little of the waiting
embeddings, then hand everything over in one call to the loop. With nothing to do it sleeps.
So a command (also the abort of a client who left) waits for one step at most, neither kind of work
starves the other, and a step costs the loop one wake-up, however many streams it feeds.
"""

import asyncio
import logging
import queue
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np

from model.engine.engine import Engine, Output
from model.engine.errors import QueueFull
from model.engine.sequence import Request
from model.server.adapters import Adapters
from model.server.errors import Overloaded, ServerError
from model.server.metrics import Metrics
from model.server.slices import Embedder, Job, Slices, Vectors

T = TypeVar("T")

MAX_QUEUED_TOKENS = 1 << 20  # of texts that wait to be embedded

logger = logging.getLogger(__name__)


class Worker:
    """Everything but `start` and `close` is for the event loop that called `start`."""

    def __init__(
        self,
        engine: Engine,
        embedder: Embedder | None,
        metrics: Metrics,
        adapters: Adapters | None = None,
    ) -> None:
        self.engine = engine
        self._adapters = adapters
        self.broken = asyncio.Event()  # the thread has ended by itself; nothing will be answered
        self._metrics = metrics
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._slices = Slices(embedder)  # the thread's
        self._posts: list[tuple[Callable[..., None], Any]] = []  # the thread's, until handed over
        self._readers: dict[str, asyncio.Queue[Output | Exception]] = {}
        self._pending: set[asyncio.Future[Any]] = set()
        self._queued_tokens = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current turn; what is unfinished is dropped."""
        self._commands.put(None)
        self._thread.join()

    @property
    def num_open(self) -> int:
        """Requests whose answers somebody is waiting for."""
        return len(self._readers)

    def free_id(self, wanted: str) -> str:
        """`wanted`, or something like it while another request has that id."""
        return f"{wanted}-{uuid.uuid4().hex[:8]}" if wanted in self._readers else wanted

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread, between two steps."""
        if self.broken.is_set():
            raise failure()
        future = self._future()

        def command() -> None:
            try:
                self._post(_set_result, (future, function()))
            except Exception as error:
                self._post(_set_exception, (future, error))

        self._commands.put(command)
        result: T = await future
        return result

    @asynccontextmanager
    async def answers(self, requests: Sequence[Request]) -> AsyncGenerator[AsyncIterator[Output]]:
        """Outputs of all `requests` as they come, until each has ended.

        Raises what `Engine.add` raises, before anything is generated. Leaving the context early
        aborts what is unfinished: its blocks are free within one step.
        """
        reader: asyncio.Queue[Output | Exception] = asyncio.Queue()
        self._readers |= dict.fromkeys((request.id for request in requests), reader)
        try:
            await self.call(lambda: self._add(requests))
            yield _read(reader, sum(request.params.n for request in requests))
        except QueueFull as error:
            self._metrics.rejections[error.reason].inc()
            raise
        finally:
            for request in requests:
                del self._readers[request.id]
            self._commands.put(lambda: self._abort(requests))

    async def abort(self, request_id: str) -> bool:
        """End a request whose reader still waits; False if there is none."""

        def abort() -> bool:
            outputs = self.engine.abort(request_id)
            self._post(self._hand_out, outputs)
            return bool(outputs)

        return await self.call(abort)

    async def embed(self, sequences: list[list[int]]) -> Vectors:
        """Unit vectors [B, D], computed in slices between the engine's steps."""
        num_tokens = sum(map(len, sequences))
        if self._queued_tokens and self._queued_tokens + num_tokens > MAX_QUEUED_TOKENS:
            self._metrics.rejections["tokens"].inc()
            raise Overloaded("too many texts wait to be embedded")
        job = Job(sequences, self._future())
        self._queued_tokens += num_tokens
        try:
            await self.call(lambda: self._slices.add(job))
            return await job.done
        finally:
            self._queued_tokens -= num_tokens
            job.done.cancel()

    # ---------------------------------------------------------------- in the thread

    def _run(self) -> None:
        try:
            while self._turn():
                self._hand_over()
        except Exception:
            logger.exception("the engine's thread ends")
            self._post(self._fail, None)
        self._hand_over()

    def _turn(self) -> bool:
        if not self._obey():
            return False
        is_busy = self.engine.has_work
        if is_busy:
            self._post(self._hand_out, self.engine.step())
        for job in self._slices.advance(is_busy):
            self._post(_set_result, (job.done, np.concatenate(job.vectors)))
        self._post(self._metrics.record, self.engine.stats())
        return True

    def _obey(self) -> bool:
        """Carry out the commands that are there; False if one says to leave."""
        may_sleep = not self.engine.has_work and not self._slices.has_work
        while True:
            try:
                command = self._commands.get(may_sleep)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            may_sleep = False

    def _add(self, requests: Sequence[Request]) -> None:
        """All of them or none."""
        try:
            for request in requests:
                if self._adapters is not None and request.adapter is not None:
                    self._adapters.prepare(request.adapter, self.engine.adapters)
                self.engine.add(request)
        except Exception:
            self._abort(requests)
            raise

    def _abort(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self.engine.abort(request.id)

    def _post(self, function: Callable[..., None], argument: Any) -> None:
        self._posts.append((function, argument))

    def _hand_over(self) -> None:
        posts, self._posts = self._posts, []
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_call_all, posts)

    # ---------------------------------------------------------------- in the loop

    def _hand_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            if reader := self._readers.get(output.request_id):
                reader.put_nowait(output)

    def _future(self) -> asyncio.Future[Any]:
        """One that does not outlive the thread."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _fail(self, _: None) -> None:
        self.broken.set()
        for future in list(self._pending):
            _set_exception((future, failure()))
        for reader in self._readers.values():
            reader.put_nowait(failure())


def failure() -> ServerError:
    """What everybody is told after the thread has broken."""
    return ServerError("the engine has failed", code="engine_failed")


def _call_all(posts: list[tuple[Callable[..., None], Any]]) -> None:
    for function, argument in posts:
        function(argument)


def _set_result(pair: tuple[asyncio.Future[T], T]) -> None:
    if not pair[0].done():
        pair[0].set_result(pair[1])


def _set_exception(pair: tuple[asyncio.Future[Any], Exception]) -> None:
    if not pair[0].done():
        pair[0].set_exception(pair[1])


async def _read(
    reader: asyncio.Queue[Output | Exception], num_running: int
) -> AsyncIterator[Output]:
    while num_running:
        output = await reader.get()
        if isinstance(output, Exception):
            raise output
        num_running -= output.finish_reason is not None
        yield output
