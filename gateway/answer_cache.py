"""Answers that need not be computed twice: kept ones, and those that somebody is just being given.

`answer_key` says when two requests are the same. Kept are complete, successful answers, in memory,
bounded by bytes, and in Redis where there is one, for as long as the release allows. Identical
requests at the same time share one flight. Whom an answer may be served to, the key alone decides.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cachetools import LRUCache

from gateway.answer_flight import ENDS, Flight, Pieces, Produce
from gateway.answer_forms import Entry
from gateway.answer_key import Question, is_reworded
from gateway.charges import cost_of, read_usage
from gateway.errors import GatewayError
from gateway.routing.attempts import Attempt

if TYPE_CHECKING:
    from gateway.answer_redis import RedisAnswers
    from gateway.answer_vectors import Vector, Vectors

Status = Literal["hit", "semantic", "miss", "bypass"]
Embed = Callable[[str], Awaitable["Vector | None"]]  # a unit vector; None: cannot tell now

COMPLETE = {"stop", "length", "tool_calls", "function_call"}
LARGEST = 8  # of so many parts of the memory an entry may take one


class NotCached(GatewayError):
    """The client wants a kept answer or none (RFC 9111, 5.2.1.7)."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"


@dataclass
class Served:
    """`frames` is to be read to its end or closed. `entry`: the kept answer, if it is one."""

    status: Status
    frames: Pieces = field(init=False)
    entry: Entry | None = None
    age_s: float = 0.0
    similarity: float | None = None
    attempts: Sequence[Attempt] = ()

    @property
    def model(self) -> str:
        """Who served; known from the first frame on."""
        return self.entry.model if self.entry else self.attempts[-1].target.model

    @property
    def headers(self) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = [("x-cache", self.status)]
        if self.entry:
            headers.append(("age", str(int(self.age_s))))
        if self.similarity is not None:
            headers.append(("x-cache-similarity", f"{self.similarity:.4f}"))
        return headers


class Kept(LRUCache[str, Entry]):
    num_evicted = 0

    def popitem(self) -> tuple[str, Entry]:
        self.num_evicted += 1
        return super().popitem()


class AnswerCache:
    """`counts` of statuses, what was `saved_…` and the `num_…` are for the metrics."""

    def __init__(
        self,
        max_bytes: int,
        *,
        shared: "RedisAnswers | None" = None,
        max_vectors: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[Status] = Counter()
        self.saved_tokens = 0
        self.saved_cost = 0  # nano-dollars
        self._kept = Kept(max_bytes, getsizeof=lambda entry: entry.size)
        self._max_entry = max_bytes // LARGEST
        self._shared = shared
        self._max_vectors = max_vectors
        self._vectors: Vectors | None = None
        self._clock = clock
        self._flights: dict[tuple[str, bool], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_bytes(self) -> int:
        return int(self._kept.currsize)

    @property
    def num_evicted(self) -> int:
        return self._kept.num_evicted

    async def serve(
        self,
        question: Question | None,
        produce: Produce,
        bill: list[Attempt],
        embed: Embed | None = None,
    ) -> Served:
        """A kept answer, or a seat in a flight; `bill` is where the attempts to be paid go.

        Raises NotCached. A question of None is answered past the cache.
        """
        served = await self._serve(question, produce, bill, embed)
        self.counts[served.status] += 1
        if served.entry and served.entry.usage:
            self.saved_tokens += served.entry.usage.get("total_tokens") or 0
            self.saved_cost += served.entry.cost
        return served

    async def aclose(self) -> None:
        """Let what is being kept be kept; flights end with their readers."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(
        self,
        question: Question | None,
        produce: Produce,
        bill: list[Attempt],
        embed: Embed | None,
    ) -> Served:
        if question is None:
            served = Served("bypass", attempts=bill)
            served.frames = produce(bill)
            return served
        vector = None
        if not question.controls.no_cache:
            if entry := await self._find(question):
                return self._replay(question, entry)
            if question.text and embed is not None:
                vector = await embed(question.text)
            if vector is not None and (near := self._find_similar(question, vector)):
                return self._replay(question, *near)
        if question.controls.only_if_cached:
            raise NotCached("there is no kept answer to this request")
        served = Served("miss")
        served.frames = self._fly(question, served, produce, bill, vector)
        return served

    def _replay(self, question: Question, entry: Entry, similarity: float | None = None) -> Served:
        async def frames() -> Pieces:
            yield entry.frames(question.is_stream)

        status: Status = "hit" if similarity is None else "semantic"
        age_s = max(0.0, self._clock() - entry.stored)
        served = Served(status, entry, age_s, similarity)
        served.frames = frames()
        return served

    async def _fly(
        self,
        question: Question,
        served: Served,
        produce: Produce,
        bill: list[Attempt],
        vector: "Vector | None",
    ) -> Pieces:
        """Begins with the first frame that is asked for, so that nobody flies without a reader."""
        name = question.key, question.is_stream
        is_shared = not question.controls.no_cache
        flight = self._flights.get(name) if is_shared else None
        if flight is None or flight.is_left:
            if is_shared and (entry := self._fresh(question, self._kept.get(question.key))):
                served.entry = entry  # kept since it was looked for
                yield entry.frames(question.is_stream)
                return
            flight = Flight()
            if is_shared:
                self._flights[name] = flight
            flight.task = self._spawn(self._lead(flight, question, produce, vector))
        served.attempts = flight.attempts
        async with aclosing(flight.read(bill)) as pieces:
            async for frames in pieces:
                yield frames

    async def _lead(
        self, flight: Flight, question: Question, produce: Produce, vector: "Vector | None"
    ) -> None:
        """What is complete is kept before its last piece is out: who asks again then finds it."""
        name = question.key, question.is_stream
        entry: Entry | None = None

        def keep() -> None:
            nonlocal entry
            entry = self._entry_of(flight)
            if entry is not None:
                self._kept[question.key] = entry
                if vector is not None:
                    self._similar.add(question.partition, question.key, question.text, vector)

        try:
            await flight.run(produce, keep)
        finally:
            if self._flights.get(name) is flight:
                del self._flights[name]
        if entry is not None and self._shared is not None:
            await self._shared.keep(question.key, entry, question.policy.ttl_s)

    def _entry_of(self, flight: Flight) -> Entry | None:
        """None for what is not complete, not a success, or too large."""
        frames = [frame for frames in flight.pieces for frame in frames]
        finishes = {c.finish_reason for f in frames for c in f.choices if c.finish_reason}
        if flight.error or not frames or frames[-1].kind not in ENDS or not finishes <= COMPLETE:
            return None
        usages = [frame.usage for frame in frames if frame.usage is not None]
        usage = usages[-1] if usages else None
        target = flight.attempts[-1].target if flight.attempts else None
        entry = Entry(
            data=[frame.data for frame in frames if frame.kind != "done"],
            is_stream=frames[-1].kind == "done",
            stored=self._clock(),
            model=target.model if target else "",
            usage=usage,
            cost=cost_of(target, read_usage(usage)) if target and usage else 0,
        )
        return entry if entry.size <= self._max_entry else None

    def _fresh(self, question: Question, entry: Entry | None) -> Entry | None:
        limits = (question.policy.ttl_s, question.controls.max_age)
        longest = min(limit for limit in limits if limit is not None)
        return entry if entry and self._clock() - entry.stored <= longest else None

    async def _find(self, question: Question) -> Entry | None:
        if entry := self._fresh(question, self._kept.get(question.key)):
            return entry
        if self._shared is None:
            return None
        entry = self._fresh(question, await self._shared.find(question.key))
        if entry and entry.size <= self._max_entry:
            self._kept[question.key] = entry
        return entry

    def _find_similar(self, question: Question, vector: "Vector") -> tuple[Entry, float] | None:
        threshold = question.policy.threshold
        while near := self._similar.nearest(question.partition, vector):
            if threshold is None or near.similarity < threshold:
                return None
            if not is_reworded(question.text, near.text):
                return None
            kept = self._kept.get(near.key)
            if kept is not None:
                entry = self._fresh(question, kept)
                return (entry, near.similarity) if entry else None
            self._similar.forget(question.partition, near.key)
        return None

    @property
    def _similar(self) -> "Vectors":
        if self._vectors is None:
            from gateway.answer_vectors import Vectors  # numpy, for who compares by meaning

            self._vectors = Vectors(self._max_vectors)
        return self._vectors

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
