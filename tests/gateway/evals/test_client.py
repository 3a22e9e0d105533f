"""Over real HTTP: waits when told to, counts tokens and money, says why there was no answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.evals.client import TRIES, Client, Unanswered, content

Handler = Callable[[web.Request], Awaitable[web.Response]]
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
ANSWER = {"choices": [{"message": {"content": "Paris"}}], "usage": USAGE}


def price_of(release: str, *tokens: int) -> int:
    return sum(tokens) if release == "r-1" else 0


def with_client(handler: Handler, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        app = web.Application()
        app.router.add_route("*", "/v1/{tail:.*}", handler)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            url = str(server.make_url("/"))
            return await use(Client(session, url, "sk-x", price_of))

    return asyncio.run(go())


def test_an_answer_with_its_price() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response(ANSWER, headers={"x-glassgate-release": "r-1"})

    reply = with_client(handler, lambda it: it.post("/v1/chat/completions", {}))
    assert content(reply) == "Paris"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost) == (9, 4, 16)
    assert reply.total_us > 0
    assert seen[0].headers["authorization"] == "Bearer sk-x"
    assert seen[0].headers["cache-control"] == "no-store"


def test_it_waits_as_it_was_told() -> None:
    waits = iter(["0.01", "0.01"])

    async def handler(request: web.Request) -> web.Response:
        if wait := next(waits, None):
            return web.json_response({}, status=429, headers={"retry-after": wait})
        return web.json_response(ANSWER)

    assert content(with_client(handler, lambda it: it.post("/v1/x", {}))) == "Paris"


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (503, TRIES)])
def test_no_answer_says_why(status: int, tries: int) -> None:
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        body = {"error": {"message": "not today"}}
        return web.json_response(body, status=status, headers={"retry-after": "0.001"})

    with pytest.raises(Unanswered, match="not today"):
        with_client(handler, lambda it: it.post("/v1/x", {}))
    assert count == tries


def test_nobody_is_there() -> None:
    async def go() -> None:
        async with aiohttp.ClientSession() as session:
            await Client(session, "http://127.0.0.1:1", "", price_of).post("/v1/x", {})

    with pytest.raises(Unanswered, match="does not answer"):
        asyncio.run(go())


def test_what_speaks_no_json_is_no_gateway() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>")

    for use in (Client.releases, lambda it: it.post("/v1/x", {})):
        with pytest.raises(Unanswered, match="no gateway"):
            with_client(handler, use)


def test_what_serves_now() -> None:
    async def handler(request: web.Request) -> web.Response:
        models = [{"id": "town", "release": "town-1"}, {"id": "town@town-1"}]
        return web.json_response({"data": models})

    assert with_client(handler, Client.releases) == {"town": "town-1"}
