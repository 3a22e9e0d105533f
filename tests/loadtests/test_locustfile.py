"""Locust's users, run by locust itself: first tokens on time, and no failures that are none."""

import asyncio
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def locust(
    server: Any, user: str, count: int = 1, **variables: str
) -> dict[str, dict[str, Any]]:
    """Locust's statistics by request type, times in milliseconds, of so many requests."""
    words = ["-f", "loadtests/locustfile.py", "--headless", "--host", server.url]
    words += ["-u", "1", "-t", "60s", "--json", "--exit-code-on-error", "0", user]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", *words),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | variables,
    )
    while len(server.spoke) <= count:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.02)
    process.terminate()
    said, _ = await process.communicate()
    assert process.returncode == 0
    return {row["method"]: row for row in json.loads(said)}


async def test_a_first_token_does_not_wait_for_the_rest(timed: Callable[..., Any]) -> None:
    """The rest comes a second later: FastHttp's own lines would be that late."""
    async with timed(gap_s=1.0, num=2) as server:
        server.go_on.set()
        rows = await locust(server, "ChatUser")
    assert rows["TTFT"]["max_response_time"] < 900 < rows["TPOT"]["min_response_time"]
    assert rows["POST"]["num_failures"] == 0


@pytest.mark.services
async def test_within_five_milliseconds_of_the_truth(timed: Callable[..., Any]) -> None:
    async with timed(first_s=0.05, gap_s=0.02, num=10) as server:
        server.go_on.set()
        rows = await locust(server, "ChatUser", count=5)
    for kind, true in (("TTFT", 50), ("TPOT", 20)):
        counts = Counter({int(ms): n for ms, n in rows[kind]["response_times"].items()})
        assert true <= statistics.median(counts.elements()) <= true + 5


async def test_a_refusal_is_what_a_hostile_user_expects(timed: Callable[..., Any]) -> None:
    async with timed(num=1, status=400) as server:
        rows = await locust(server, "HostileUser")
    assert rows["POST"]["num_requests"] > rows["POST"]["num_failures"] == 0


@pytest.mark.parametrize(
    "end", [b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n', b"data: {no\n\n"]
)
async def test_a_stream_that_went_wrong_is_a_failure(timed: Callable[..., Any], end: bytes) -> None:
    async with timed(num=1, end=end) as server:
        rows = await locust(server, "RagUser", LOAD_MODEL="theirs")
    assert rows.keys() == {"POST"}
    assert rows["POST"]["num_requests"] == rows["POST"]["num_failures"] > 0
    assert {json.loads(it)["model"] for it in server.asked} == {"theirs"}


async def test_an_answer_of_one_token_has_no_tpot(timed: Callable[..., Any]) -> None:
    async with timed(num=1) as server:
        rows = await locust(server, "ChatUser")
    assert rows.keys() == {"POST", "TTFT"}


@pytest.mark.parametrize(
    ("variables", "is_there"),
    [
        ({"LOAD_MODEL": "m"}, False),
        ({"LOAD_MODEL": "m", "LOAD_EMBEDDER": "e"}, True),
    ],
)
async def test_who_asks_for_embeddings(variables: dict[str, str], is_there: bool) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--list"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | variables,
    )
    said, _ = await process.communicate()
    assert (b"EmbeddingsUser" in said) == is_there
    assert b"ChatUser" in said
