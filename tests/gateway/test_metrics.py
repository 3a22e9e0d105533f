"""What the parts know of themselves is told when Prometheus asks."""

import asyncio
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


async def told(house: Any) -> dict[str, float]:
    text = await (await house.ask("GET", "/metrics")).text()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("glassgate_"): float(value) for name, _, value in lines}


def replicas(numbers: dict[str, float]) -> dict[str, float]:
    states = ("closed", "held", "open", "half_open")
    found = {it: numbers[f'upstream_replicas{{state="{it}",target="up"}}'] for it in states}
    return {state: count for state, count in found.items() if count}


async def test_the_ledger_is_seen_from_outside(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat()
        await house.rows()
        numbers = await told(house)
        assert (numbers["ledger_rows"], numbers["ledger_open"]) == (1, 0)
        assert (numbers["journal_bytes"], numbers["ledger_failures"]) == (0, 0)
        assert numbers["ledger_torn"] == 0


async def test_attempts_under_way_are_seen(open_house: Any, upstream: Any, say: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [say.word("Par"), go, say.FINISH, say.DONE]
    async with open_house() as house:
        assert replicas(await told(house)) == {"closed": 1}
        reply = await house.chat(stream=True)
        numbers = await told(house)
        assert numbers['upstream_in_flight{target="up"}'] == numbers["ledger_open"] == 1
        go.set()
        await reply.read()
        assert (await told(house))['upstream_in_flight{target="up"}'] == 0


@pytest.mark.parametrize(("status", "state"), [(429, "held"), (500, "open")])
async def test_an_upstream_in_trouble_is_seen(
    open_house: Any, upstream: Any, status: int, state: str
) -> None:
    upstream.status = status
    upstream.reply_headers = {"retry-after": "30"} if status == 429 else {}
    over = {"breaker": {"failures_in_a_row": 1, "cooldown_s": 60, "cooldown_max_s": 60}}
    async with open_house(over) as house:
        await house.chat()
        assert replicas(await told(house)) == {state: 1}
