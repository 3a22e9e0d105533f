"""What the client says it saw is what the server did, and each way to fail has its name."""

import asyncio
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from loadtests.client import Record, ask
from loadtests.faults import FaultServer
from loadtests.users import Sent, request

pytestmark = pytest.mark.anyio


async def asked(url: str, sent: Sent, patience_s: float = 30.0) -> Record:
    record = Record("phase", "chat", "", "id", due=asyncio.get_running_loop().time())
    patience = aiohttp.ClientTimeout(total=patience_s)
    async with aiohttp.ClientSession(timeout=patience) as http:
        await ask(http, url, sent, {}, record)
    return record


async def test_a_first_token_is_seen_before_the_second_is_sent(
    timed: Callable[..., Any],
) -> None:
    async with timed() as server:
        record = Record("phase", "chat", "", "id", due=0.0)
        async with aiohttp.ClientSession() as http:
            asking = asyncio.create_task(ask(http, server.url, request("chat", "m", 1), {}, record))
            while record.first is None:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            server.go_on.set()
            await asking
    assert (record.error, record.status) == ("", 200)
    assert (record.prompt, record.completion, len(record.gaps)) == (7, 4, 3)


@pytest.mark.services
async def test_within_five_milliseconds_of_the_truth(timed: Callable[..., Any]) -> None:
    firsts, gaps = [], []
    async with timed(first_s=0.05, gap_s=0.02, num=10) as server:
        server.go_on.set()
        for _ in range(20):
            record = await asked(server.url, request("chat", "m", 1))
            spoke = server.spoke[-1]
            firsts.append((record.first or 0.0) - spoke[0])
            told = [b - a for a, b in pairwise(spoke)]
            gaps += [abs(a - b) for a, b in zip(told, record.gaps, strict=True)]
    assert 0 <= statistics.median(firsts) <= 0.005
    assert statistics.quantiles(gaps, n=20)[-1] <= 0.005


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("ok", ""),
        ("cut", "reset"),
        ("truncated", "truncated"),
        ("malformed", "malformed"),
        ("error-503", "status 503"),
        ("silent", "timeout"),
        ("reset", "reset"),
    ],
)
async def test_every_failure_has_a_name(model: str, error: str) -> None:
    async with FaultServer(scale=0.1) as server:
        url = server.base_url.removesuffix("/v1")
        record = await asked(url, request("chat", model, 1), patience_s=1.0)
    assert record.error == error
    assert record.end > record.sent > 0


async def test_an_error_in_a_stream_stays_one_after_its_end(timed: Callable[..., Any]) -> None:
    end = b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n'
    async with timed(num=1, end=end) as server:
        assert (await asked(server.url, request("chat", "m", 1))).error == "in-band"


async def test_nobody_there() -> None:
    async with FaultServer() as server:
        url = server.base_url.removesuffix("/v1")
    assert (await asked(url, request("chat", "ok", 1))).error == "refused"


@pytest.mark.parametrize(("model", "error"), [("context-length", ""), ("ok", "let in: 200")])
async def test_hostile_requests_ought_to_be_refused(model: str, error: str) -> None:
    sent = request("chat", model, 1)._replace(is_welcome=False)
    async with FaultServer() as server:
        record = await asked(server.base_url.removesuffix("/v1"), sent)
    assert record.error == error


@pytest.mark.parametrize(
    ("first", "completion", "tpot"), [(2.0, 5, 0.5), (2.0, 1, None), (None, 5, None)]
)
async def test_waits_count_from_the_due_time(
    first: float | None, completion: int, tpot: float | None
) -> None:
    record = Record("", "", "", "", due=1.0, sent=1.5, first=first, end=4.0, completion=completion)
    assert record.e2e == 3.0
    assert record.ttft == (None if first is None else 1.0)
    assert record.tpot == tpot
