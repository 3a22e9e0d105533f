"""Limits and budgets on the road: a refusal costs nothing, an end of any kind gives all back."""

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config_file import parse
from gateway.limits.redis import RedisLimiter
from gateway.state import make_limiter
from gateway.store.audit import By
from gateway.store.teams import NewBudget, put_budget

pytestmark = pytest.mark.anyio

PRICED = {"upstreams": {"up": {"prices": [{"prompt": Decimal(1), "completion": Decimal(1)}]}}}


def limited(**limits: Any) -> dict[str, Any]:
    return {"server": {"key_limits": "all"}, "limits": {"all": limits}}


async def error_of(reply: Any) -> tuple[int, str, str]:
    error = (await reply.json())["error"]
    return reply.status, error["type"], error["code"]


async def test_a_refused_request_burns_nothing(open_house: Any) -> None:
    async with open_house(limited(requests_per_minute=1)) as house:
        first = await house.chat()
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        reply = await house.chat()
        assert await error_of(reply) == (429, "rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert len(house.upstream.requests) == len(await house.rows()) == 1


async def test_tokens_are_reserved_at_the_bound_and_settled_at_the_use(open_house: Any) -> None:
    async with open_house(limited(tokens_per_minute=2000)) as house:
        for _ in range(8):  # each reserves more than a quarter and uses ten
            reply = await house.chat(max_tokens=500)
            assert reply.status == 200
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) > 1000
        reply = await house.chat(max_tokens=5000)
        assert (await error_of(reply))[0] == 429
        assert reply.headers["x-should-retry"] == "false"


async def test_a_hard_budget_is_a_quota_and_a_soft_one_a_warning(open_house: Any) -> None:
    async with open_house(PRICED) as house:

        async def budget(**bounds: Decimal) -> None:
            new = NewBudget(subject="family:town", period="day", **bounds)
            await house.state.store.write(put_budget, By("me"), new)
            await house.state.mirror.refresh()

        await budget(soft=Decimal("0.000001"))
        assert (await house.chat()).headers["x-glassgate-budget"] == "over the day of the family"
        await budget(hard=Decimal("0.00002"))
        reply = await house.chat(max_tokens=5000)
        assert await error_of(reply) == (429, "insufficient_quota", "insufficient_quota")
        assert reply.headers["x-should-retry"] == "false"
        text = await (await house.ask("GET", "/metrics")).text()
        assert 'glassgate_soft_budgets_total{subject="family"} 1.0' in text


async def test_who_waits_in_the_queue_is_let_in(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.FINISH, say.DONE]
    over = limited(concurrent=1) | {"families": {"town": {"queue": 1, "queue_s": 30.0}}}
    async with open_house(over) as house:
        first = await house.chat(stream=True)
        second = asyncio.create_task(house.chat())
        async with asyncio.timeout(5):
            while not house.state.admission.num_waiting("town"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert (await house.chat()).status == 429  # the queue holds one
        go.set()
        await first.read()
        assert (await second).status == 200


async def test_every_end_gives_its_slot_back_and_is_one_row(
    open_house: Any, upstream: Any, say: Any
) -> None:
    ends = {
        "ok": lambda: [say.word("a"), say.FINISH, say.DONE],
        "upstream_truncated": lambda: [say.word("a")],
        "upstream_malformed": lambda: [say.word("a"), b"data: {\n\n"],
        "client_gone": lambda: [say.word("a"), asyncio.Event()],
    }
    async with open_house(limited(concurrent=1)) as house:
        kinds = ["ok", *ends, "ok", *ends]
        for kind in kinds:
            upstream.pieces = ends[kind]()
            reply = await house.chat(stream=True)
            assert reply.status == 200, kind
            if kind == "client_gone":
                await reply.content.readline()
                reply.close()
            else:
                await reply.read()
            async with asyncio.timeout(5):
                while house.state.exchanges:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        assert sorted(row["outcome"] for row in await house.rows()) == sorted(kinds)
        assert house.state.ledger.stats().open_requests == 0


def test_redis_is_used_where_it_is_named() -> None:
    config = parse({"redis": {"url": "redis://127.0.0.1:1", "gateways": 4}})
    assert isinstance(make_limiter(config, SimpleNamespace(spent=None)), RedisLimiter)
