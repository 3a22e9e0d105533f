"""Every row of the fault table, against real sockets: scaled down, and at full length.

The fault is chosen by the model's name, see `loadtests.faults`. Upper bounds on time are checked
at full length only, where a busy machine cannot break them.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from gateway.config import BreakerPolicy, Deadlines, Retries
from gateway.routing import attempts
from gateway.routing.attempts import Attempt, Plan
from gateway.routing.balance import Pool
from gateway.upstream import Client, Target, UpstreamError
from loadtests.faults import ANSWER, FaultServer

pytestmark = pytest.mark.anyio

STREAM = {"messages": [{"role": "user", "content": "Count."}], "stream": True}
PLAIN = {**STREAM, "stream": False}


class World:
    """A fault upstream and a pool, with all deadlines of the gateway multiplied by `scale`."""

    def __init__(self, server: FaultServer, pool: Pool, scale: float) -> None:
        self.server = server
        self.pool = pool
        self.scale = scale
        self.attempts: list[Attempt] = []

    def target(self, model: str, can_continue: bool = False) -> Target:
        wait = Deadlines(total=30.0)  # the table's baseline: 30 s per attempt
        scaled = {name: value * self.scale for name, value in msgspec.structs.asdict(wait).items()}
        scaled["connect"] = 3.0
        return Target(
            name="faulty",
            model=model,
            base_urls=(self.server.base_url,),
            deadlines=Deadlines(**scaled),
            can_continue=can_continue,
        )

    async def ask(self, *models: str, body: dict[str, Any] = STREAM, **plan: Any) -> str:
        """The text that a client gets, [DONE] included. `can_continue` ends in "+"."""
        targets = [self.target(model.removesuffix("+"), model.endswith("+")) for model in models]
        x = self.scale
        retries = Retries(backoff_s=0.25 * x, backoff_max_s=4 * x, max_wait_s=5 * x)
        what = Plan(
            targets=tuple(targets),
            path="/chat/completions",
            body=body,
            is_streamed=body["stream"],
            retries=retries,
            **plan,
        )
        self.attempts = []
        text = ""
        async with aclosing(attempts.run(what, self.pool, self.attempts)) as frames:
            async for together in frames:
                self.given = text
                if together[0].kind == "body":
                    return str(json.loads(together[0].raw)["choices"][0]["message"]["content"])
                text += "".join(frame.text for frame in together)
                self.given = text
        return text + "[DONE]"

    def models(self) -> list[str]:
        return [attempt.target.model for attempt in self.attempts]

    def outcomes(self) -> list[str]:
        return [attempt.outcome for attempt in self.attempts]


@pytest.fixture(params=[0.08, pytest.param(1.0, marks=pytest.mark.services)])
async def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    scale = request.param
    for name in ("END_S", "RATE_LIMIT_S"):
        monkeypatch.setattr(attempts, name, getattr(attempts, name) * scale)
    policy = BreakerPolicy(window_s=30 * scale, cooldown_s=scale, cooldown_max_s=10 * scale)
    client = Client()
    pool = Pool(client, policy, random.Random(1))
    async with FaultServer(scale) as server:
        yield World(server, pool, scale)
        await pool.close()
        await client.close()


@pytest.fixture
def within(world: World, request: pytest.FixtureRequest) -> Any:
    started = time.monotonic()

    def check(seconds: float) -> None:
        if world.scale == 1.0:
            assert time.monotonic() - started <= seconds

    return check


WHOLE = ANSWER + "[DONE]"


@pytest.mark.parametrize("body", [STREAM, PLAIN])
async def test_no_fault(world: World, body: dict[str, Any]) -> None:
    assert (await world.ask("ok", body=body)).removesuffix("[DONE]") == ANSWER
    [attempt] = world.attempts
    assert (attempt.outcome, attempt.status) == ("ok", 200)
    assert attempt.usage is not None
    assert attempt.usage["completion_tokens"] == 60
    assert attempt.num_chunks == (60 if body["stream"] else 0)


async def test_retry_after_is_waited_for(world: World) -> None:
    assert await world.ask("rate-limit-once") == WHOLE
    first, second = world.server.seen
    assert second.at - first.at >= 1.8 * world.scale


async def test_rate_limit_and_a_fallback(world: World) -> None:
    assert await world.ask("rate-limit-once", "ok") == WHOLE
    assert world.models() == ["rate-limit-once", "ok"]


@pytest.mark.parametrize("model", ["rate-limit", "rate-limit-bare"])
async def test_rate_limit_forever(world: World, model: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask(model)
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert len(world.server.seen) == 3
    early = [it for it in world.server.seen if it.at - world.server.seen[0].at < 3 * world.scale]
    assert len(early) <= 4
    assert await world.ask(f"{model}:b", "ok") == WHOLE


@pytest.mark.parametrize("body", [STREAM, PLAIN])
@pytest.mark.parametrize("model", ["error-500-once", "reset-once", "error-503-once"])
async def test_once_is_retried_on_the_same_target(
    world: World, model: str, body: dict[str, Any]
) -> None:
    assert (await world.ask(model, "ok", body=body)).startswith(ANSWER)
    assert world.models() == [model, model]


@pytest.mark.parametrize("model", ["error-503", "reset", "error-500"])
async def test_forever_means_the_fallback(world: World, model: str) -> None:
    assert await world.ask(model, "ok") == WHOLE
    assert world.models() == [model] * 3 + ["ok"]
    assert world.attempts[-1].usage is not None


async def test_six_attempts_in_all(world: World) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask("error-503:a", "error-503:b", "error-503:c")
    assert caught.value.status == 503
    assert len(world.server.seen) == 6


@pytest.mark.parametrize("body", [STREAM, PLAIN])
async def test_silent_is_asked_once(world: World, body: dict[str, Any], within: Any) -> None:
    assert (await world.ask("silent", "ok", body=body)).startswith(ANSWER)
    assert world.models() == ["silent", "ok"]
    assert world.outcomes() == ["timeout_headers" if body["stream"] else "timeout_total", "ok"]
    within(15 if body["stream"] else 35)


async def test_slow_first_token(world: World, within: Any) -> None:
    assert await world.ask("slow-first-token", "ok") == WHOLE
    assert world.outcomes() == ["timeout_first_token", "ok"]
    within(15)


FAULTS_MIDWAY = {
    "cut": "reset",
    "truncated": "truncated",
    "stall": "timeout_idle",
    "malformed": "malformed",
}


@pytest.mark.parametrize("model", FAULTS_MIDWAY)
async def test_midway_under_error(world: World, model: str, within: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask(model, "ok")
    assert caught.value.kind == FAULTS_MIDWAY[model]
    assert world.models() == [model]
    assert ANSWER.startswith(world.given)
    assert world.attempts[0].num_chunks == 40
    assert await world.ask("ok") == WHOLE  # alive afterwards
    within(45)


@pytest.mark.parametrize("model", FAULTS_MIDWAY)
async def test_midway_under_hold(world: World, model: str, within: Any) -> None:
    assert await world.ask(model, "ok", recovery="hold") == WHOLE
    assert world.models()[-1] == "ok"
    assert not any(attempt.is_delivered for attempt in world.attempts[:-1])
    within(45)


@pytest.mark.parametrize("model", FAULTS_MIDWAY)
async def test_midway_under_continue(world: World, model: str, within: Any) -> None:
    assert await world.ask(model, "ok+", recovery="continue") == WHOLE
    assert world.models() == [model, "ok"]
    assert world.server.seen[-1].prefill == ANSWER[: len(world.server.seen[-1].prefill)] != ""
    assert [attempt.num_chunks for attempt in world.attempts] == [40, 20]
    within(45)


async def test_plain_body_cut_once(world: World) -> None:
    assert await world.ask("cut-once", body=PLAIN) == ANSWER
    assert world.outcomes() == ["reset", "ok"]


@pytest.mark.parametrize("models", [("cut", "ok"), ("cut", "no-prefill+"), ("cut+",)])
async def test_nobody_can_continue(world: World, models: tuple[str, ...]) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask(*models, recovery="continue")
    assert caught.value.kind == "reset"
    assert ANSWER.startswith(world.given)
    assert len(world.given.split()) == 40 or models == ("cut+",)


async def test_finish_without_done(world: World, within: Any) -> None:
    assert await world.ask("no-done") == WHOLE
    assert world.attempts[0].usage is not None
    within(8)


async def test_context_length(world: World) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask("context-length", "ok")
    assert (caught.value.status, len(world.attempts)) == (400, 1)
    assert b"context_length_exceeded" in caught.value.body
    larger = world.target("ok")
    assert await world.ask("context-length", "error-500", larger=larger) == WHOLE
    assert world.models() == ["context-length", "ok"]


async def test_content_policy(world: World) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask("content-policy", "ok")
    assert (caught.value.status, len(world.attempts)) == (400, 1)
    assert b"content_policy_violation" in caught.value.body


async def test_a_refusal_of_the_fallback_masks_no_outage(world: World) -> None:
    with pytest.raises(UpstreamError) as caught:
        await world.ask("error-503", "context-length")
    assert caught.value.status == 503


async def test_primary_down(world: World) -> None:
    async with FaultServer(world.scale) as primary:
        targets = [
            msgspec.structs.replace(world.target("ok:primary"), base_urls=(primary.base_url,)),
            world.target("ok"),
        ]
        plan = Plan(
            targets=tuple(targets),
            path="/chat/completions",
            body=STREAM,
            is_streamed=True,
            retries=Retries(backoff_s=0.25 * world.scale),
        )

        async def serving() -> str:
            made: list[Attempt] = []
            assert [it async for it in attempts.run(plan, world.pool, made)][-1][-1].kind == "done"
            assert len(made) <= 6
            return made[-1].target.model

        await primary.stop()
        for _ in range(20):
            assert await serving() == "ok"
            await asyncio.sleep(3 * world.scale)
        await primary.start()
        started = time.monotonic()
        while await serving() != "ok:primary":
            assert time.monotonic() - started < 30 * max(world.scale, 1 / 3)
            await asyncio.sleep(world.scale)
        assert 1 <= primary.num_probes <= 3


async def test_client_leaves(world: World) -> None:
    made: list[Attempt] = []
    plan = Plan(
        targets=(world.target("stall"),), path="/chat/completions", body=STREAM, is_streamed=True
    )
    async with aclosing(attempts.run(plan, world.pool, made)) as frames:
        async for together in frames:
            if together[-1].text.startswith("word39"):
                break
    assert made[0].outcome == "cancelled"
    assert made[0].num_chunks == 40
