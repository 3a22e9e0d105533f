"""One owner of retries: a plan goes in, the frames of one complete answer come out.

The order of a request's attempts is `run`; whom to ask is `itinerary`, what a frame says `frames`,
what the client has already `delivery`. A finish_reason earns [DONE]; nothing else does.
"""

import time
from bisect import bisect_left
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from gateway.config import Retries
from gateway.routing.balance import Lease, Pool
from gateway.routing.delivery import Delivery, Recovery
from gateway.routing.failures import is_too_long
from gateway.routing.frames import DONE_FRAME, Frame, read_body, read_event
from gateway.routing.itinerary import Itinerary
from gateway.upstream import ERROR_BYTES, Post, Reply, Target, UpstreamError, retry_after
from model.protocol.sse import Event

ANSWER_BYTES = 64 << 20
END_S = 2.0  # how long usage and [DONE] may take after the last finish_reason
DRAIN_S = 0.25  # how long a finished connection may take to become free for the next request
GAP_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # buckets
RATE_LIMIT_S = 1.0  # how long a 429 that names no time keeps us away


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, and whom. `body` is the upstream's, without `model`, which each target names."""

    targets: tuple[Target, ...]
    path: str  # follows the base URL: "/chat/completions"
    body: dict[str, Any]
    headers: dict[str, str] = {}
    is_streamed: bool = False
    num_choices: int = 1
    is_bound_ours: bool = False  # the body's max_tokens: where it does not fit, it is left out
    larger: Target | None = None  # where a prompt goes that is too long for the others
    recovery: Recovery = "error"
    retries: Retries = Retries()


class Attempt(msgspec.Struct):
    """One request to one replica, as it was used. Times in seconds, `started` monotonic.

    `outcome`: "ok", that of an UpstreamError, or "cancelled"; "running" until then. `num_chunks`
    counts pieces with content, most often a token each; `gaps` are the waits between them, in the
    buckets of GAP_S. `status` is that of the reply, whatever came in it.
    """

    target: Target
    base_url: str
    started: float
    outcome: str = "running"
    status: int | None = None
    num_chunks: int = 0
    ttft: float | None = None
    latency: float = 0.0
    usage: dict[str, Any] | None = None
    ignored: str = ""  # fields of the request that the upstream does not know
    is_delivered: bool = False  # something of it was handed out
    last_chunk: float = 0.0  # when it came, as `started`
    gaps: list[int] = msgspec.field(default_factory=lambda: [0] * (len(GAP_S) + 1))
    gaps_s: float = 0.0  # their sum

    def take(self, frame: Frame) -> None:
        if frame.kind == "content" or any(choice.has_content for choice in frame.choices):
            self.num_chunks += 1
        if frame.usage is not None:
            self.usage = frame.usage

    def arrived(self, now: float) -> None:
        """Content, all that came at once."""
        if self.last_chunk:
            gap = now - self.last_chunk
            self.gaps[bisect_left(GAP_S, gap)] += 1
            self.gaps_s += gap
        self.last_chunk = now


async def run(plan: Plan, pool: Pool, attempts: list[Attempt]) -> AsyncGenerator[list[Frame], None]:
    """Yield the frames of one answer, those that came together together; `attempts` grows by a
    record for each that was made.

    A stream ends with a frame of kind "done"; a plain reply is one frame of kind "body". Raises
    UpstreamError when nobody answered or, after the first content, when the answer broke off.
    """
    itinerary = Itinerary(plan.targets, plan.larger, plan.retries, pool)
    delivery = Delivery(plan.recovery)
    body = plan.body
    while True:
        lease = await itinerary.next()
        record = Attempt(lease.target, lease.base_url, time.monotonic())
        attempts.append(record)
        try:
            with lease:
                async with await _open(plan, body, lease, pool, record) as reply:
                    reading = Reading(reply, plan, lease, record)
                    while frames := await reading.next():
                        if out := delivery.take(frames):
                            record.is_delivered = True
                            yield out
                    await reply.drain(DRAIN_S)
            return
        except UpstreamError as error:
            record.outcome = error.outcome
            pool.complaints.note(plan.headers.get("x-request-id", ""), lease.target, error)
            if _is_bound_to_blame(plan, body, error):
                body = {name: it for name, it in body.items() if name != "max_tokens"}
                continue
            itinerary.failed(lease, error)
            body = _next_body(plan, delivery, itinerary, error)
        finally:
            if record.outcome == "running":
                record.outcome = "cancelled"
            record.latency = time.monotonic() - record.started


def _is_bound_to_blame(plan: Plan, body: dict[str, Any], error: UpstreamError) -> bool:
    """Then it is left out: what fits beside the prompt is less than it, and so is bound by it."""
    is_ours = plan.is_bound_ours and "max_tokens" in body
    return is_ours and plan.larger is None and is_too_long(error)


def _next_body(
    plan: Plan, delivery: Delivery, itinerary: Itinerary, error: UpstreamError
) -> dict[str, Any]:
    """What the next attempt is to send. Raises `error` if the client has too much for another."""
    if not delivery.is_committed:
        delivery.drop()
        return plan.body
    body = delivery.resume(plan.body) if plan.recovery == "continue" else None
    if body is None:
        raise error
    itinerary.recover(error)
    return body


async def _open(
    plan: Plan, body: dict[str, Any], lease: Lease, pool: Pool, record: Attempt
) -> Reply:
    """Send the request. Raises UpstreamError also for a status that is no success."""
    sent = msgspec.json.encode({**body, "model": lease.target.model})
    post = Post(plan.path, sent, plan.headers, plan.is_streamed)
    reply = await pool.client.open(lease.target, lease.base_url, post)
    record.status = reply.status
    record.ignored = reply.headers.get("x-ignored-params", "")
    if 200 <= reply.status < 300:
        return reply
    async with reply:
        raise await _refusal(reply)


class Reading:
    """One reply, read to its end: a stream up to [DONE], which stands there if it was earned.

    Every frame is noted in `record`, and the first content in `lease` and `reply` too.
    """

    def __init__(self, reply: Reply, plan: Plan, lease: Lease, record: Attempt) -> None:
        self._reply = reply
        self._lease = lease
        self._record = record
        self._is_streamed = plan.is_streamed
        self._num_choices = plan.num_choices
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._is_over = False
        self._error: UpstreamError | None = None

    async def next(self) -> list[Frame]:
        """The frames that came since the last call; none when all was read."""
        if self._error is not None:
            raise self._error
        if self._is_over:
            return []
        if not self._is_streamed:
            body = await self._reply.read(ANSWER_BYTES)
            self._is_over = True
            return self._noted([read_body(body)])
        try:
            events = await self._reply.next_events()
        except UpstreamError:
            if not self._is_complete:
                raise
            events = []
        return self._noted(self._read(events))

    @property
    def _is_complete(self) -> bool:
        return len(self._finished) >= self._num_choices and self._finished == self._begun

    def _read(self, events: list[Event]) -> list[Frame]:
        """What is wrong is raised at once, or after what came before it in the same read."""
        frames: list[Frame] = []
        try:
            for event in events:
                frame = read_event(event)
                if frame.kind == "done":
                    self._num_choices = 1  # an upstream may give fewer than were asked for
                    return [*frames, self._end()]
                frames.append(frame)
                if frame.kind == "content" and not self._finished:  # most are: it ends nothing
                    for choice in frame.choices:
                        self._begun.add(choice.index)
                else:
                    self._follow(frame)
            if not events:
                frames.append(self._end())
        except UpstreamError as error:
            if not frames:
                raise
            self._error = error
        return frames

    def _follow(self, frame: Frame) -> None:
        """Which choices have begun and which have finished."""
        was_complete = self._is_complete
        for choice in frame.choices:
            self._begun.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
        if was_complete != self._is_complete:
            self._reply.ending(END_S) if self._is_complete else self._reply.began()

    def _end(self) -> Frame:
        self._is_over = True
        if not self._is_complete:
            raise UpstreamError("truncated", "the stream ended without a finish_reason")
        return DONE_FRAME

    def _noted(self, frames: list[Frame]) -> list[Frame]:
        record = self._record
        now, num_chunks = time.monotonic(), record.num_chunks
        for frame in frames:
            if record.ttft is None and frame.kind in ("content", "finish", "body"):
                record.ttft = now - record.started
                self._lease.began()
                self._reply.began()
            record.take(frame)
        if record.num_chunks > num_chunks:
            record.arrived(now)
        if self._is_over:
            record.outcome = "ok"
        return frames


async def _refusal(reply: Reply) -> UpstreamError:
    wait = retry_after(reply.headers)
    if wait is None and reply.status == 429:
        wait = RATE_LIMIT_S
    try:
        body = await reply.read(ERROR_BYTES)
    except UpstreamError:
        body = b""  # the status says enough
    return UpstreamError("status", status=reply.status, retry_after=wait, body=body)
