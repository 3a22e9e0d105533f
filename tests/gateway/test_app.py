"""What holds for every request: the door, the host, errors; and the routes that are no model's."""

import asyncio
import gzip
import io
import re
from typing import Any

import pytest

from gateway.app import DOORS, client_address
from gateway.config import Server
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, SCOPES, NewKey, create

pytestmark = pytest.mark.anyio

HOSTILE: list[tuple[bytes, str]] = [
    (b"{", "body"),
    (b"", "body"),
    (b"[]", "body"),
    (b'{"model":"town","messages":[{"role":"user","content":"\\ud800"}]}', "body"),
    (b'{"model":"town","messages":[{"role":"user","content":"\xff"}]}', "body"),
    (b'{"model":"town","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
    (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":"nobody","messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":"town@nobody","messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":"town"}', "messages"),
    (b'{"model":"town","messages":[]}', "messages"),
    (b'{"model":"town","messages":"hi"}', "messages"),
    (b'{"model":"town","messages":[7]}', "messages[0]"),
    (b'{"model":"town","messages":[{}],"max_tokens":-1}', "max_tokens"),
    (b'{"model":"town","messages":[{}],"max_tokens":1000000000}', "max_tokens"),
    (b'{"model":"town","messages":[{}],"max_tokens":1e999}', "max_tokens"),
    (b'{"model":"town","messages":[{}],"max_tokens":NaN}', "max_tokens"),
    (b'{"model":"town","messages":[{}],"max_completion_tokens":0}', "max_completion_tokens"),
    (b'{"model":"town","messages":[{}],"n":0}', "n"),
    (b'{"model":"town","messages":[{}],"stream":"yes"}', "stream"),
    (b'{"model":"town","messages":[{}],"stream_options":{}}', "stream_options"),
    (b'{"model":"town","messages":[{}],"user":{}}', "user"),
    (b"x" * 2_000_000, "body"),
]


async def test_hostile_input_is_a_4xx_with_its_param(open_house: Any) -> None:
    async with open_house({"server": {"max_body_bytes": 1_000_000}}) as house:
        for body, param in HOSTILE:
            reply = await house.ask("POST", "/v1/chat/completions", data=io.BytesIO(body))
            error = (await reply.json())["error"]
            assert 400 <= reply.status < 500, body[:80]
            assert (error["param"], bool(error["message"])) == (param, True), body[:80]
        assert not house.upstream.requests


async def test_a_body_in_another_coding_is_a_415(open_house: Any) -> None:
    async with open_house() as house:
        raw = gzip.compress(b'{"model":"town","messages":[{"role":"user","content":"x"}]}')
        packed = {"content-encoding": "gzip"}
        for path in ("chat/completions", "files"):
            reply = await house.ask("POST", f"/v1/{path}", data=raw, headers=packed)
            assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
            assert (await reply.json())["error"]["code"] == "encoded_body"
        plain = {"content-encoding": "identity"}
        assert (await house.chat(headers=plain)).status == 200


async def test_completions_and_embeddings_are_checked_too(open_house: Any) -> None:
    async with open_house() as house:
        for path, body in (
            ("completions", {"model": "town"}),
            ("completions", {"model": "town", "prompt": {}}),
            ("embeddings", {"model": "town", "input": []}),
        ):
            reply = await house.ask("POST", f"/v1/{path}", json=body)
            assert (reply.status, (await reply.json())["error"]["param"]) in (
                (400, "prompt"),
                (400, "input"),
            )


async def test_every_route_is_closed_but_for_who_has_its_scope(open_house: Any) -> None:
    async with open_house() as house:
        keys = {}
        for scope in (None, *sorted(SCOPES)):
            new = NewKey(name="k", scopes=(scope,) if scope else ())
            _, keys[scope] = await house.state.store.write(create, By("test"), OPERATOR, new)
        await house.state.mirror.refresh()
        for door in DOORS:
            path = re.sub(r"{.*?}", "x", door.path)

            async def status(key: str, method: str = door.method, path: str = path) -> int:
                headers = {"authorization": f"Bearer {key}"} if key else {}
                reply = await house.ask(method, path, headers=headers)
                return int(reply.status)

            if door.scope == "open":
                assert await status("") == 200
                continue
            assert await status("") == 401, door
            assert await status("sk-gg-nonsense") == 401, door
            assert await status(keys[None]) == 403, door
            assert await status(keys[door.scope]) not in (401, 403), door


async def test_the_config_is_shown_to_who_administers(open_house: Any) -> None:
    async with open_house() as house:
        new = NewKey(name="k", scopes=("admin",))
        _, key = await house.state.store.write(create, By("test"), OPERATOR, new)
        await house.state.mirror.refresh()
        reply = await house.ask("GET", "/admin/config", headers={"authorization": f"Bearer {key}"})
        shown = (await reply.json())["data"]
        assert shown["server.port"] == {"value": 8080, "origin": "default"}
        assert shown["upstreams.up.model"]["value"] == "up-model"


async def test_paths_and_methods_that_nobody_serves(open_house: Any) -> None:
    async with open_house() as house:
        for method, path, status in (
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1/chat/completions", 405),
            ("POST", "/v1/models", 405),
            ("PUT", "/v1/files", 405),
            ("GET", "/v1/models/nobody", 404),
        ):
            reply = await house.ask(method, path)
            assert (reply.status, reply.content_type) == (status, "application/json")
            assert "x-request-id" in reply.headers
            assert ("allow" in reply.headers) == (status == 405)
        assert (await house.ask("PUT", "/v1/files")).headers["allow"] == "GET, HEAD, POST"


async def test_models_are_families_and_their_releases(open_house: Any) -> None:
    over = {
        "releases": {
            "town-0": {
                "family": "town",
                "upstream": "up",
                "replaced_by": "town-1",
                "shutdown_date": "2030-01-02",
                "deprecated": "2029-01-02",
            }
        }
    }
    async with open_house(over) as house:
        reply = await house.ask("GET", "/v1/models")
        models = {model["id"]: model for model in (await reply.json())["data"]}
        assert models.keys() == {"town", "town@town-0", "town@town-1"}
        assert models["town"]["release"] == "town-1"
        assert models["town@town-0"]["shutdown_date"] == "2030-01-02"
        reply = await house.ask("GET", "/v1/models/town@town-0")
        assert await reply.json() == models["town@town-0"]
        reply = await house.chat(model="town@town-0")
        assert reply.headers["sunset"] == "Wed, 02 Jan 2030 00:00:00 GMT"
        assert reply.headers["deprecation"] == "@1862006400"


async def raw(url: str, request: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(5):
        reply = await reader.read()
    writer.close()
    return reply


async def test_a_host_that_is_not_ours_is_refused(open_house: Any) -> None:
    async with open_house() as house:
        for hosts, status in (
            ((), 400),
            (("a.example",), 400),
            (("127.0.0.1", "127.0.0.1"), 400),
            (("127.0.0.1:99999999",), 200),
            (("LOCALHOST",), 200),
            (("[::1]:80",), 200),
        ):
            lines = "".join(f"host: {host}\r\n" for host in hosts)
            text = f"GET /health/live HTTP/1.1\r\n{lines}connection: close\r\n\r\n"
            reply = await raw(house.url, text.encode())
            assert reply.startswith(b"HTTP/1.1 %d " % status), (hosts, reply)


async def test_a_page_of_another_site_cannot_post(open_house: Any) -> None:
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    async with open_house() as house:
        reply = await house.chat(headers=foreign)
        assert (reply.status, (await reply.json())["error"]["code"]) == (403, "cross_site")
        assert (await house.chat(headers=foreign | {"sec-fetch-site": "same-origin"})).status == 200
        assert (await house.ask("GET", "/health/live", headers=foreign)).status == 200
    async with open_house({"server": {"cors_origins": ["https://evil.example"]}}) as house:
        assert (await house.chat(headers=foreign)).status == 200


async def test_cors_is_off_until_an_origin_is_named(open_house: Any) -> None:
    origin = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with open_house() as house:
        reply = await house.ask("GET", "/health/live", headers=origin)
        assert "access-control-allow-origin" not in reply.headers
    async with open_house({"server": {"cors_origins": ["https://app.example"]}}) as house:
        path = "/v1/chat/completions"
        reply = await house.ask("OPTIONS", path, headers=origin)
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        reply = await house.ask("OPTIONS", path, headers={**origin, "origin": "https://b.example"})
        assert "access-control-allow-origin" not in reply.headers


async def test_a_page_reads_errors_too_and_every_header(open_house: Any) -> None:
    async with open_house({"server": {"cors_origins": ["https://app.example"]}}) as house:
        origin = {"origin": "https://app.example", "sec-fetch-site": "cross-site"}
        for status, body in ((200, {}), (400, {"n": 0}), (404, {"model": "nobody"})):
            reply = await house.chat(headers=origin, **body)
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == "https://app.example"
            assert reply.headers["access-control-expose-headers"] == "*"
        reply = await house.ask("GET", "/nowhere", headers=origin)
        assert (reply.status, "access-control-allow-origin" in reply.headers) == (404, True)


def test_the_client_is_whom_a_trusted_proxy_names() -> None:
    def address(peer: str, forwarded: str | None, *trusted: str) -> str:
        fields = {} if forwarded is None else {"x-forwarded-for": forwarded}
        scope = {"client": (peer, 1), "fields": fields}
        return client_address(scope, Server(trusted_proxies=trusted))

    assert address("10.0.0.1", None) == "10.0.0.1"
    assert address("127.0.0.1", "127.0.0.1") == ""  # a proxy that nobody declared: not local
    assert address("127.0.0.1", "1.2.3.4", "127.0.0.1") == "1.2.3.4"
    assert address("10.0.0.1", "127.0.0.1, 1.2.3.4, 10.0.0.2", "10.0.0.1", "10.0.0.2") == "1.2.3.4"
    assert address("10.0.0.1", "127.0.0.1", "10.0.0.1") == "127.0.0.1"


async def test_metrics_are_in_prometheus_words(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat()
        text = await (await house.ask("GET", "/metrics")).text()
        labels = 'family="town",kind="completion",release="town-1",route="chat"'
        assert f"glassgate_tokens_total{{{labels}}} 3.0" in text


async def test_too_many_at_once_are_told_to_come_back(open_house: Any, upstream: Any) -> None:
    upstream.pieces = [asyncio.Event()]
    async with open_house({"server": {"max_in_flight": 1}}) as house:
        first = asyncio.create_task(house.chat(stream=True))
        await upstream.asked.wait()
        reply = await house.chat()
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        first.cancel()
