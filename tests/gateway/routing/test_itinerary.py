"""Whom a request asks next and how long it waits before that. In virtual time."""

import asyncio
import weakref
from typing import Any

import pytest

from gateway.config import Retries
from gateway.routing.balance import Pool
from gateway.routing.itinerary import Itinerary
from gateway.upstream import Target, UpstreamError

RETRIES = Retries()
A, B, C, LARGE = (Target(name=name, model="m", base_urls=(f"http://{name}/v1",)) for name in "abcl")
GOES_ON = Target(name="g", model="m", base_urls=("http://g/v1",), can_continue=True)
TOO_LONG = b'{"error": {"message": "the request exceeds the available context size"}}'


def status(code: int, retry_after: float | None = None, body: bytes = b"") -> UpstreamError:
    return UpstreamError("status", status=code, retry_after=retry_after, body=body)


async def walk(pool: Pool, targets: tuple[Target, ...], errors: list[UpstreamError]) -> list[Any]:
    """Fail with one error after the other: the names asked, then the error that ended it."""
    itinerary = Itinerary(targets, LARGE, RETRIES, pool)
    asked: list[Any] = []
    for error in errors:
        try:
            lease = await itinerary.next()
            asked.append(lease.target.name)
            try:
                with lease:
                    raise error
            except UpstreamError:
                itinerary.failed(lease, error)
        except UpstreamError as final:
            return [*asked, final]
    return asked


RESET, SILENT = UpstreamError("reset"), UpstreamError("timeout_headers")
REFUSED, LIMITED = status(400), status(429, 2.0)
WALKS = [
    # targets, errors, who is asked, which error ends it
    ((A, B), [RESET] * 7, "aaabbb", RESET),
    ((A, B), [SILENT] * 3, "ab", SILENT),
    ((A,), [RESET] * 4, "aaa", RESET),
    ((A, B, C), [RESET] * 7, "aaabbb", RESET),
    ((A, B), [REFUSED], "a", REFUSED),
    ((A, B), [status(401), status(404), RESET], "ab", None),
    ((A, B), [LIMITED, RESET, RESET, RESET], "abbb", None),
    ((A, B), [SILENT, REFUSED], "ab", SILENT),
    ((A,), [status(400, body=TOO_LONG), RESET], "al", None),
    ((A,), [status(400, body=TOO_LONG)] * 2, "al", None),
]


@pytest.mark.parametrize(("targets", "errors", "asked", "final"), WALKS)
def test_walk(targets: Any, errors: Any, asked: str, final: Any, run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        *names, last = [*await walk(pool, targets, errors), None][: len(asked) + 1]
        assert "".join(names) == asked
        if final is not None:
            assert last is final

    run_virtual(test)


def test_back_off_is_full_jitter(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        waits: list[list[float]] = [[], []]
        loop = asyncio.get_running_loop()
        for i in range(200):
            itinerary = Itinerary(
                [Target(name="a", model=str(i), base_urls=("u",))], None, RETRIES, pool
            )
            for wait in waits:
                with await itinerary.next() as lease:
                    pass
                itinerary.failed(lease, RESET)
                before = loop.time()
                await itinerary.next()
                wait.append(loop.time() - before)
        for k, wait in enumerate(waits):
            most = RETRIES.backoff_s * 2**k
            assert 0 <= min(wait) < 0.1 * most
            assert 0.9 * most < max(wait) <= most

    run_virtual(test)


def test_retry_after_is_waited_for_where_nobody_else_is(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await walk(pool, (A,), [LIMITED, RESET]) == ["a", "a"]
        assert 2.0 <= loop.time() - before <= 2.0 + RETRIES.backoff_s

    run_virtual(test)


def test_a_long_retry_after_is_the_clients(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        error = status(429, RETRIES.max_wait_s + 1)
        assert await walk(pool, (A,), [error, RESET]) == ["a", error]
        [final] = await walk(pool, (A,), [RESET])  # another request, at once
        assert (final.kind, final.retry_after) == ("open", RETRIES.max_wait_s + 1)
        assert loop.time() == before

    run_virtual(test)


def test_who_is_held_by_a_429_is_limited_and_not_broken(run_virtual: Any) -> None:
    """But not with one of them that is overloaded, or whose breaker is open."""

    async def test(pool: Pool) -> None:
        limited, overloaded = status(429, 30.0), status(503, 20.0)
        assert await walk(pool, (A, B), [limited, limited, RESET]) == ["a", "b", limited]
        [final] = await walk(pool, (A, B), [RESET])
        assert (final.kind, final.status, final.retry_after) == ("open", 429, 30.0)
        assert await walk(pool, (A, C), [overloaded]) == ["c"]
        [final] = await walk(pool, (A, C), [RESET])
        assert (final.kind, final.status, final.retry_after) == ("open", None, 20.0)
        for _ in range(3):
            await walk(pool, (GOES_ON,), [SILENT])
        [final] = await walk(pool, (A, GOES_ON), [RESET])
        assert (final.kind, final.status) == ("open", None)

    run_virtual(test)


def test_nobody_open(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        await walk(pool, (A,), [SILENT])
        await walk(pool, (A,), [SILENT])
        await walk(pool, (A,), [SILENT])
        [final] = await walk(pool, (A,), [RESET])
        assert final.kind == "open"
        assert 0 < final.retry_after <= 10
        assert await walk(pool, (A, B), [RESET]) == ["b"]

    run_virtual(test)


def test_what_failed_does_not_keep_the_answer(run_virtual: Any) -> None:
    """Frames of a traceback hold the bytes that were read; a failure is kept, they are not."""

    class Answer:
        pass

    def read() -> None:
        answer = Answer()
        held.append(weakref.ref(answer))
        try:
            raise ValueError("no JSON")
        except ValueError as error:
            raise UpstreamError("malformed") from error

    async def test(pool: Pool) -> None:
        itinerary = Itinerary([A], None, RETRIES, pool)
        lease = await itinerary.next()
        try:
            read()
        except UpstreamError as error:
            itinerary.failed(lease, error)
        assert held[0]() is None

    held: list[weakref.ref[Answer]] = []
    run_virtual(test)


def test_silence_of_one_replica_sends_to_another(run_virtual: Any) -> None:
    """At once, and never twice to the same one."""
    two = Target(name="t", model="m", base_urls=("http://t1/v1", "http://t2/v1"))

    async def test(pool: Pool) -> None:
        loop, asked = asyncio.get_running_loop(), []
        itinerary, before = Itinerary([two, B], None, RETRIES, pool), loop.time()
        for _ in range(3):
            lease = await itinerary.next()
            asked.append(lease.base_url)
            itinerary.failed(lease, SILENT)
        assert sorted(asked[:2]) == list(two.base_urls)
        assert asked[2] == B.base_urls[0]
        assert loop.time() == before

    run_virtual(test)


def test_recovery_asks_only_who_can_continue(run_virtual: Any) -> None:
    async def test(pool: Pool) -> None:
        itinerary = Itinerary([A, B, GOES_ON], LARGE, RETRIES, pool)
        first = await itinerary.next()
        itinerary.failed(first, RESET)
        itinerary.recover(RESET)
        second = await itinerary.next()
        assert second.target is GOES_ON
        itinerary.failed(second, REFUSED)  # a refused prefill is nobody's fault
        with pytest.raises(UpstreamError) as caught:
            await itinerary.next()
        assert caught.value is RESET

    run_virtual(test)
