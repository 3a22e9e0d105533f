"""Processes that are killed or frozen in mid-stream, while others could do their work."""

import asyncio
from collections.abc import Callable

import pytest

from .town import House, frozen, model_server

pytestmark = [pytest.mark.services, pytest.mark.anyio]


async def test_the_gateway_is_killed(
    move_in: Callable[..., House], note: Callable[..., None]
) -> None:
    """Who was in mid-stream is cut, who comes before it is back is refused; all others are served,
    and the cut ones are listed as killed, each once."""
    house = move_in()
    async with house.load() as healthy:
        await asyncio.sleep(6)
    async with house.load() as load:
        await asyncio.sleep(3)
        house.kill()
        await asyncio.to_thread(house.start)
        await asyncio.sleep(4)
    note("kill -9 of the gateway, and a new one", house, healthy, load)
    assert {it.error for it in load.failed} <= {"reset", "refused"}
    assert not any(it.error for it in load.records[-20:])
    killed = {row["request_id"] for row in house.rows() if row["outcome"] == "killed"}
    assert killed
    assert killed <= {it.request_id for it in load.failed if it.error == "reset"}


@pytest.mark.parametrize("blow", ["kill -9", "SIGSTOP"])
async def test_one_of_two_model_servers(
    move_in: Callable[..., House], note: Callable[..., None], model_url: str, blow: str
) -> None:
    """Only whose answer had begun there may hear of it."""
    with model_server() as (other, process):
        house = move_in(upstreams=[model_url, other])
        async with house.load() as healthy:
            await asyncio.sleep(8)
        async with house.load() as load:
            await asyncio.sleep(2)
            if blow == "kill -9":
                process.kill()
                await asyncio.sleep(7)
            else:
                with frozen(process.pid):
                    await asyncio.sleep(8)
        note(f"{blow} of one of two model servers", house, healthy, load)
    assert {(it.error, it.first is not None) for it in load.failed} <= {("in-band", True)}
    assert len(load.failed) <= 50
    assert load.cpu_each <= 2 * healthy.cpu_each
