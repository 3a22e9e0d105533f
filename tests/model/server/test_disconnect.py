"""Whoever leaves takes the work for them along: blocks, queue places, threads' time."""

import asyncio
import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from .conftest import running

BODY = {
    "model": "tiny-random",
    "messages": [{"role": "user", "content": "x" * 100}],
    "ignore_eos": True,
    "max_tokens": 1800,
}


SHORT = {"model": "tiny-random", "prompt": "a", "max_tokens": 5, "ignore_eos": True}


@pytest.fixture(scope="module")
def small():
    """Room for two sequences at a time."""
    with running(engine={"max_num_seqs": 2}) as server:
        yield server


def send(server, **more):
    """A request on a connection of its own, which the caller closes."""
    host, port = server.url.removeprefix("http://").split(":")
    line = socket.create_connection((host, int(port)), timeout=20)
    body = json.dumps(BODY | more).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    line.sendall(head.encode() + body)
    return line


def is_idle(server):
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        server.wait_for(gauge, 0)
    assert server.http.get("/load").json() == {"server_load": 0}


@pytest.mark.parametrize("stream", [False, True])
def test_running_and_queued_requests_end_with_their_clients(small, stream):
    lines = [send(small, stream=stream) for _ in range(5)]
    small.wait_for("num_requests_running", 2)
    small.wait_for("num_requests_waiting", 3)
    aborted = small.metric("request_success_total", finished_reason="abort")
    for line in lines:
        line.close()
    is_idle(small)
    assert small.metric("request_success_total", finished_reason="abort") == aborted + 5


def test_the_others_go_on(small):
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(
            small.http.post, "/v1/chat/completions", json=BODY | {"max_tokens": 300}
        )
        leaves = send(small, stream=True)
        assert leaves.recv(1000).startswith(b"HTTP/1.1 200")
        leaves.close()
        assert stays.result().json()["usage"]["completion_tokens"] == 300
    is_idle(small)


def test_a_request_can_be_aborted_by_its_id(small):
    with ThreadPoolExecutor(1) as pool:
        headers = {"x-request-id": "long"}
        asked = pool.submit(small.http.post, "/v1/chat/completions", json=BODY, headers=headers)
        small.wait_for("num_requests_running", 1)
        reply = small.http.post("/abort", json={"id": "chatcmpl-long"})
        assert reply.json() == {"aborted": True}
        assert asked.result().json()["choices"][0]["finish_reason"] == "abort"
    assert small.http.post("/abort", json={"id": "chatcmpl-long"}).json() == {"aborted": False}
    is_idle(small)


def test_an_id_that_is_in_use_is_given_once(small):
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(
                small.http.post,
                "/v1/chat/completions",
                json=BODY | {"max_tokens": 200},
                headers={"x-request-id": "same"},
            )
            for _ in range(2)
        ]
        ids = {one.result().json()["id"] for one in asked}
    assert len(ids) == 2


def test_a_full_queue_says_503_and_when_to_come_back():
    with running(engine={"max_num_seqs": 1, "max_num_queued_reqs": 1}) as server:
        lines = [send(server)]
        server.wait_for("num_requests_running", 1)
        lines.append(send(server))
        server.wait_for("num_requests_waiting", 1)
        reply = server.http.post("/v1/chat/completions", json=BODY)
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["code"] == "overloaded"
        assert server.metric("admission_rejections_total", reason="max_num_queued_reqs") == 1
        for line in lines:
            line.close()
        is_idle(server)


def test_two_hundred_who_leave_are_gone_when_the_next_one_asks(small):
    async def leave_soon(session, i):
        body = {"model": "tiny-random", "prompt": [i] * 40, "max_tokens": 1900, "ignore_eos": True}
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(0.2),
                session.post("/v1/completions", json=body | {"stream": i % 2 == 0}) as reply,
            ):
                await reply.read()

    async def crowd():
        unlimited = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(small.url, connector=unlimited) as session:
            await asyncio.gather(*(leave_soon(session, i) for i in range(200)))

    asyncio.run(crowd())
    is_idle(small)
    assert small.http.post("/v1/completions", json=SHORT).json()["usage"]["completion_tokens"] == 5
