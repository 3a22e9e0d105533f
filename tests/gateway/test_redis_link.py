"""Asked within a deadline or not at all, in virtual time."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from gateway.redis_link import COOLDOWN_S, FAILURES, RedisLink, RedisSilent, Script

pytestmark = pytest.mark.anyio


class Client:
    """Answers, raises or hangs as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.outcome: Any = b"fine"
        self.asked: list[Any] = []

    async def execute_command(self, *command: Any) -> Any:
        self.asked.append(command)
        if self.outcome == "hang":
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def aclose(self) -> None:
        pass


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def times() -> list[float]:
    return [100.0]


@pytest.fixture
def link(client: Client, times: list[float]) -> RedisLink:
    return RedisLink(client, 0.001, clock=lambda: times[0])  # type: ignore[arg-type]


async def fail(link: RedisLink, number: int = FAILURES) -> None:
    for _ in range(number):
        with pytest.raises(RedisSilent) as caught:
            await link.call("PING")
        assert caught.value.was_asked


@pytest.mark.parametrize(
    "trouble", ["hang", RedisConnectionError("cut"), OSError(), ResponseError("OOM")]
)
async def test_whatever_goes_wrong_is_silence(
    link: RedisLink, client: Client, trouble: Any
) -> None:
    client.outcome = trouble
    await fail(link, 1)
    assert link.num_silent == 1


async def test_after_some_failures_nobody_asks_and_then_one_does(
    link: RedisLink, client: Client, times: list[float]
) -> None:
    client.outcome = OSError()
    await fail(link)
    assert link.is_silent
    with pytest.raises(RedisSilent) as caught:
        await link.call("PING")
    assert not caught.value.was_asked
    assert caught.value.retry_after_s == COOLDOWN_S
    assert len(client.asked) == FAILURES

    times[0] += COOLDOWN_S
    client.outcome = "hang"
    probes = await asyncio.gather(*(link.call("PING") for _ in range(9)), return_exceptions=True)
    assert all(isinstance(probe, RedisSilent) for probe in probes)
    assert len(client.asked) == FAILURES + 1

    times[0] += COOLDOWN_S
    client.outcome = b"fine"
    assert await link.call("PING") == b"fine"
    assert not link.is_silent
    await asyncio.gather(*(link.call("PING") for _ in range(9)))


async def test_an_answer_in_between_forgives(link: RedisLink, client: Client) -> None:
    for _ in range(FAILURES):
        client.outcome = OSError()
        await fail(link, FAILURES - 1)
        client.outcome = b"fine"
        await link.call("PING")
    assert not link.is_silent


async def test_a_cancelled_call_is_no_failure(link: RedisLink, client: Client) -> None:
    client.outcome = "hang"
    task = asyncio.create_task(link.call("PING"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert link.num_silent == 0


async def test_a_script_that_redis_has_lost_is_sent_again(link: RedisLink, client: Client) -> None:
    script = Script("return 1")

    async def lose(*command: Any) -> Any:
        client.asked.append(command)
        if command[0] == "EVALSHA":
            raise NoScriptError
        return 1

    client.execute_command = lose  # type: ignore[method-assign]
    assert await link.run(script, ["k"], ["a", 2]) == 1
    assert client.asked == [
        ("EVALSHA", script.sha, 1, "k", "a", 2),
        ("EVAL", "return 1", 1, "k", "a", 2),
    ]
