"""One owner of retries: a plan goes in, the frames of one complete answer come out.

The order of a request's attempts is `run`; whom to ask is `itinerary`, what a frame says `frames`,
what the client has already `delivery`. A finish_reason earns [DONE]; nothing else does.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.config import Retries
from gateway.routing.balance import Lease, Pool
from gateway.routing.delivery import Delivery, Recovery
from gateway.routing.frames import DONE_FRAME, Frame, read_body, read_event
from gateway.routing.itinerary import Itinerary
from gateway.upstream import ERROR_BYTES, Post, Reply, Target, UpstreamError, retry_after

ANSWER_BYTES = 64 << 20
END_S = 2.0  # how long usage and [DONE] may take after the last finish_reason
DRAIN_S = 0.25  # how long a finished connection may take to become free for the next request
RATE_LIMIT_S = 1.0  # how long a 429 that names no time keeps us away


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, and whom. `body` is the upstream's, without `model`, which each target names."""

    targets: tuple[Target, ...]
    path: str  # follows the base URL: "/chat/completions"
    body: dict[str, Any]
    headers: dict[str, str] = {}
    is_streamed: bool = False
    num_choices: int = 1
    larger: Target | None = None  # where a prompt goes that is too long for the others
    recovery: Recovery = "error"
    retries: Retries = Retries()


class Attempt(msgspec.Struct):
    """One request to one replica, as it was used. Times in seconds, `started` on the loop's clock.

    `outcome`: "ok", a kind of UpstreamError, or "cancelled"; "running" until then. `num_chunks`
    counts pieces with content, most often a token each; `text_bytes` their text in UTF-8. `status`
    is that of the reply, whatever came in it.
    """

    target: Target
    base_url: str
    started: float
    outcome: str = "running"
    status: int | None = None
    num_chunks: int = 0
    text_bytes: int = 0
    ttft: float | None = None
    latency: float = 0.0
    usage: dict[str, Any] | None = None
    is_delivered: bool = False  # something of it was handed out

    def take(self, frame: Frame) -> None:
        if text := frame.text:
            self.text_bytes += len(text.encode(errors="surrogatepass"))
        if frame.kind == "content" or any(choice.has_content for choice in frame.choices):
            self.num_chunks += 1
        if frame.usage is not None:
            self.usage = frame.usage


async def run(plan: Plan, pool: Pool, attempts: list[Attempt]) -> AsyncGenerator[Frame, None]:
    """Yield the frames of one answer; `attempts` grows by a record for each that was made.

    A stream ends with a frame of kind "done"; a plain reply is one frame of kind "body". Raises
    UpstreamError when nobody answered or, after the first content, when the answer broke off.
    """
    itinerary = Itinerary(plan.targets, plan.larger, plan.retries, pool)
    delivery = Delivery(plan.recovery)
    body = plan.body
    while True:
        lease = await itinerary.next()
        record = Attempt(lease.target, lease.base_url, asyncio.get_running_loop().time())
        attempts.append(record)
        try:
            with lease:
                async with aclosing(_attempt(plan, body, lease, pool, record)) as frames:
                    async for frame in frames:
                        for out in delivery.take(frame):
                            record.is_delivered = True
                            yield out
            return
        except UpstreamError as error:
            record.outcome = error.kind
            itinerary.failed(lease, error)
            body = _next_body(plan, delivery, itinerary, error)


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


async def _attempt(
    plan: Plan, body: dict[str, Any], lease: Lease, pool: Pool, record: Attempt
) -> AsyncGenerator[Frame, None]:
    """One exchange. Every frame is noted in `record`, and the first content in `lease` too."""
    loop = asyncio.get_running_loop()
    sent = msgspec.json.encode({**body, "model": lease.target.model})
    post = Post(plan.path, sent, plan.headers, plan.is_streamed)
    try:
        async with await pool.client.open(lease.target, lease.base_url, post) as reply:
            record.status = reply.status
            if not 200 <= reply.status < 300:
                raise await _refusal(reply)
            read = _stream(reply, plan.num_choices) if plan.is_streamed else _whole(reply)
            async with aclosing(read) as frames:
                async for frame in frames:
                    if record.ttft is None and frame.kind in ("content", "finish", "body"):
                        record.ttft = loop.time() - record.started
                        lease.began()
                        reply.began()
                    if frame.kind in ("done", "body"):
                        record.outcome = "ok"
                    record.take(frame)
                    yield frame
    finally:
        if record.outcome == "running":
            record.outcome = "cancelled"
        record.latency = loop.time() - record.started


async def _whole(reply: Reply) -> AsyncGenerator[Frame, None]:
    yield read_body(await reply.read(ANSWER_BYTES))


class _Progress:
    """Which choices have begun and which have finished."""

    def __init__(self, num_choices: int) -> None:
        self.num_choices = num_choices
        self._begun: set[int] = set()
        self._finished: set[int] = set()

    @property
    def is_complete(self) -> bool:
        return len(self._finished) >= self.num_choices and self._finished == self._begun

    def take(self, frame: Frame) -> bool:
        """Has this frame made the answer complete, or incomplete again?"""
        was_complete = self.is_complete
        for choice in frame.choices:
            self._begun.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
        return was_complete != self.is_complete


async def _stream(reply: Reply, num_choices: int) -> AsyncGenerator[Frame, None]:
    """The frames of a stream up to [DONE], which stands at its end if it was earned."""
    progress = _Progress(num_choices)
    try:
        async with aclosing(reply.events()) as events:
            async for event in events:
                frame = read_event(event)
                if frame.kind == "done":
                    progress.num_choices = 1  # an upstream may give fewer than were asked for
                    break
                yield frame
                if progress.take(frame):
                    reply.ending(END_S) if progress.is_complete else reply.began()
    except UpstreamError:
        if not progress.is_complete:
            raise
    if not progress.is_complete:
        raise UpstreamError("truncated", "the stream ended without a finish_reason")
    yield DONE_FRAME
    await reply.drain(DRAIN_S)


async def _refusal(reply: Reply) -> UpstreamError:
    wait = retry_after(reply.headers)
    if wait is None and reply.status == 429:
        wait = RATE_LIMIT_S
    try:
        body = await reply.read(ERROR_BYTES)
    except UpstreamError:
        body = b""  # the status says enough
    return UpstreamError("status", status=reply.status, retry_after=wait, body=body)
