"""The one road, on real sockets: what reaches the upstream, the client and the ledger."""

import asyncio
import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


def events(text: str) -> list[Any]:
    """The data of each event, decoded, [DONE] as it is."""
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


async def test_a_plain_answer_passes_but_for_the_models_name(open_house: Any) -> None:
    async with open_house() as house:
        reply = await house.chat(temperature=0.5, vllm_extra={"a": [1]})
        body = await reply.json()
        assert reply.status == 200
        assert body == {**house.upstream.body, "model": "up-model"}
        assert reply.headers["x-glassgate-release"] == "town-1"
        sent = house.upstream.requests[0]
        assert sent["model"] == "up-model"
        assert sent["vllm_extra"] == {"a": [1]}
        assert sent["temperature"] == 0.5
        assert sent["max_tokens"] == 512  # the release's default, which was reserved
        (row,) = await house.rows()
        assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 3)
        assert (row["usage_source"], row["outcome"], row["finish"]) == ("upstream", "ok", "stop")


async def test_a_bound_of_ours_that_does_not_fit_is_left_out(open_house: Any) -> None:
    for context, sent in ((600, 512), (500, None), (0, 512)):
        async with open_house({"upstreams": {"up": {"context_length": context}}}) as house:
            house.upstream.requests.clear()
            assert (await house.chat()).status == 200
            assert (await house.chat(max_tokens=700)).status == 200
            assert [it.get("max_tokens") for it in house.upstream.requests] == [sent, 700]
    none = {"releases": {"town-1": {"default_max_tokens": 0}}}
    async with open_house(none) as house:
        assert (await house.chat()).status == 200
        assert "max_tokens" not in house.upstream.requests[-1]


async def test_a_prompt_beyond_the_context_goes_to_the_larger_at_once(open_house: Any) -> None:
    over = {
        "upstreams": {
            "up": {"context_length": 400},
            "large": {"base_url": "http://127.0.0.1:1/v1", "model": "m"},
        },
        "families": {"town": {"context_fallback": "large"}},
    }
    async with open_house(over) as house:
        assert (await house.chat()).status == 200
        long = [{"role": "user", "content": "word " * 1000}]
        assert (await house.chat(messages=long)).status == 502
        assert len(house.upstream.requests) == 1


async def test_a_stream_passes_and_hides_the_usage_nobody_asked_for(open_house: Any) -> None:
    async with open_house() as house:
        reply = await house.chat(stream=True)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        *chunks, done = events(await reply.text())
        assert done == "[DONE]"
        assert {chunk["model"] for chunk in chunks} == {"up-model"}
        assert [c["choices"][0]["delta"].get("content") for c in chunks] == [
            "Paris", " it", " is", None,
        ]  # fmt: skip
        assert house.upstream.requests[0]["stream_options"] == {"include_usage": True}
        (row,) = await house.rows()
        assert (row["completion_tokens"], row["usage_source"]) == (3, "upstream")


async def test_usage_is_shown_to_who_asked(open_house: Any) -> None:
    async with open_house() as house:
        reply = await house.chat(stream=True, stream_options={"include_usage": True})
        *_, usage, _ = events(await reply.text())
        assert usage["usage"]["completion_tokens"] == 3
        assert usage["model"] == "up-model"


async def test_usage_that_the_upstream_does_not_tell_is_what_is_charged(
    open_house: Any, upstream: Any, say: Any
) -> None:
    upstream.pieces = [say.word("Paris"), say.word(" it"), say.FINISH]
    async with open_house() as house:
        reply = await house.chat(stream=True, stream_options={"include_usage": True})
        *_, usage, done = events(await reply.text())
        (row,) = await house.rows()
        assert (usage["choices"], usage["model"], done) == ([], "up-model", "[DONE]")
        assert usage["usage"]["prompt_tokens"] == row["prompt_tokens"] > 0
        assert usage["usage"]["completion_tokens"] == row["completion_tokens"] == 2
        assert row["usage_source"] == "estimated"
        assert '"usage"' not in await (await house.chat(stream=True)).text()


async def test_all_other_bytes_are_untouched(open_house: Any, upstream: Any, say: Any) -> None:
    odd = (
        b'data: {"model" : "m", "choices":[{"index":0,"delta":{"content":"\\u00e9 \\"m\\""}}]}\n\n'
    )
    upstream.pieces = [odd, say.FINISH, say.DONE]
    async with open_house() as house:
        reply = await house.chat(stream=True)
        assert (await reply.read()).startswith(odd.replace(b'"m",', b'"up-model",'))


async def test_a_stream_that_breaks_off_is_an_error_and_never_done(
    open_house: Any, upstream: Any, say: Any
) -> None:
    upstream.pieces = [say.word("Par")]
    async with open_house() as house:
        *chunks, error = events(await (await house.chat(stream=True)).text())
        assert [c["choices"][0]["delta"]["content"] for c in chunks] == ["Par"]
        assert error["error"]["code"] == "upstream_truncated"
        (row,) = await house.rows()
        assert row["outcome"] == "upstream_truncated"
        assert (row["completion_tokens"], row["usage_source"]) == (1, "estimated")


async def test_the_upstreams_refusal_is_the_clients(open_house: Any, upstream: Any) -> None:
    upstream.status = 400
    upstream.body = {"error": {"message": "no", "type": "t", "param": "seed", "code": "c"}}
    async with open_house() as house:
        for stream in (False, True):
            reply = await house.chat(stream=stream)
            assert reply.status == 400
            assert await reply.json() == upstream.body
        assert [row["completion_tokens"] for row in await house.rows()] == [0, 0]
        upstream.body = {"detail": "no such thing"}
        reply = await house.chat()
        error = {"message": "no such thing", "type": "invalid_request_error"}
        assert await reply.json() == {"error": error | {"param": None, "code": None}}


@pytest.mark.parametrize(
    ("theirs", "ours"), [(401, 502), (404, 404), (429, 429), (500, 502), (503, 503)]
)
async def test_what_a_client_hears_of_a_failing_upstream(
    open_house: Any, upstream: Any, theirs: int, ours: int
) -> None:
    upstream.status = theirs
    upstream.body = {"error": {"message": "secret detail", "type": "t"}}
    upstream.reply_headers = {"retry-after": "0.01"} if theirs == 429 else {}
    async with open_house({"retries": {"per_target": 0}}) as house:
        reply = await house.chat()
        assert reply.status == ours
        assert ("retry-after" in reply.headers) == (ours in (429, 503))


async def test_a_whole_answer_is_a_stream_of_one_chunk(open_house: Any, upstream: Any) -> None:
    upstream.body["choices"][0]["message"]["tool_calls"] = [{"id": "t", "type": "function"}]
    upstream.pieces = [json.dumps(upstream.body, indent=1).encode()]
    async with open_house() as house:
        reply = await house.chat(stream=True)
        chunk, last = events(await reply.text())
        assert last == "[DONE]"
        assert (chunk["object"], chunk["model"]) == ("chat.completion.chunk", "up-model")
        (choice,) = chunk["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["delta"]["content"] == "Paris"
        assert choice["delta"]["tool_calls"] == [{"id": "t", "type": "function", "index": 0}]
        (row,) = await house.rows()
        assert (row["prompt_tokens"], row["completion_tokens"], row["attempts"]) == (7, 3, 1)


NO_ANSWERS: list[Any] = [
    {"error": {"code": 401}},
    {"choices": [{"message": {"content": "cut off"}}]},
    {"choices": [{"message": {"tool_calls": ["?"]}, "finish_reason": "stop"}]},
]


@pytest.mark.parametrize("said", NO_ANSWERS)
async def test_a_whole_that_is_no_answer_is_not_taken_for_one(
    open_house: Any, upstream: Any, said: Any
) -> None:
    upstream.pieces = [json.dumps(said).encode()]
    async with open_house() as house:
        reply = await house.chat(stream=True)
        assert (reply.status, (await reply.json())["error"]["type"]) == (502, "upstream_error")


async def test_the_log_says_why_a_fallback_answers(
    open_house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    over = {
        "upstreams": {"dead": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}},
        "releases": {"town-1": {"upstream": "dead"}},
        "families": {"town": {"fallbacks": ["up"]}},
        "retries": {"per_target": 0},
    }
    async with open_house(over) as house:
        assert (await house.chat(headers={"x-request-id": "r1"})).status == 200
    (line,) = [it.getMessage() for it in caplog.records if it.name == "glassgate.upstream"]
    assert line.startswith("upstream dead failed: connect, ")
    assert line.endswith("; request r1")


async def test_a_rate_limit_is_one_for_the_next_client_too(open_house: Any, upstream: Any) -> None:
    upstream.status, upstream.reply_headers = 429, {"retry-after": "30"}
    async with open_house() as house:
        for _ in range(2):
            reply = await house.chat()
            assert (reply.status, reply.headers["retry-after"]) == (429, "30")
            assert (await reply.json())["error"]["type"] == "rate_limit_error"
        assert len(upstream.requests) == 1


async def test_the_client_leaves_and_the_upstream_hears_at_once(
    open_house: Any, upstream: Any, say: Any
) -> None:
    upstream.pieces = [say.word("Par"), asyncio.Event()]
    async with open_house() as house:
        reply = await house.chat(stream=True)
        await reply.content.readline()
        reply.close()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        (row,) = await house.rows()
        assert (row["outcome"], row["completion_tokens"]) == ("client_gone", 1)


async def test_a_client_of_a_plain_answer_may_leave_too(open_house: Any, upstream: Any) -> None:
    async with open_house() as house:
        # The upstream does not answer this one: its stream waits, and what we want is not one.
        upstream.pieces = [asyncio.Event()]
        asking = asyncio.create_task(house.chat(stream=True))
        await upstream.asked.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            await upstream.left.wait()


async def test_headers_wait_for_the_first_event_and_then_comments_keep_the_client(
    open_house: Any, upstream: Any, say: Any
) -> None:
    go = asyncio.Event()
    upstream.pieces = [go, say.word("Paris"), say.FINISH, say.DONE]
    server = {"first_event_s": 0.05, "heartbeat_s": 0.02}
    async with open_house({"server": server}) as house:
        reply = await house.chat(stream=True)  # the headers are here, the upstream still silent
        assert reply.status == 200
        assert [await reply.content.readline() for _ in range(4)] == [b": ping\n", b"\n"] * 2
        go.set()
        assert (await reply.text()).endswith("data: [DONE]\n\n")


async def test_a_failure_after_a_heartbeat_is_in_band(open_house: Any, upstream: Any) -> None:
    go = asyncio.Event()
    upstream.pieces = [go]
    async with open_house(
        {"server": {"first_event_s": 0.01}, "retries": {"per_target": 0}}
    ) as house:
        reply = await house.chat(stream=True)
        assert await reply.content.readline() == b": ping\n"
        go.set()
        (error,) = events(await reply.text())
        assert error["error"]["type"] == "upstream_error"


async def test_the_last_byte_comes_after_the_journal(open_house: Any) -> None:
    async with open_house() as house:
        for stream in (True, False):
            reply = await house.chat(stream=stream)
            await reply.read()
            assert house.state.ledger.stats().open_requests == 0


async def test_ids_come_back_and_go_on(open_house: Any, upstream: Any) -> None:
    async with open_house() as house:
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        reply = await house.chat(headers={"x-request-id": "mine-1", "traceparent": trace})
        assert reply.headers["x-request-id"] == "mine-1"
        assert upstream.headers[-1]["x-request-id"] == "mine-1"
        assert upstream.headers[-1]["traceparent"].startswith("00-" + "a" * 32)
        reply = await house.chat(headers={"x-request-id": "mine; drop"})
        assert reply.headers["x-request-id"].startswith("req_")


async def test_what_is_for_us_goes_no_further(open_house: Any, upstream: Any) -> None:
    async with open_house() as house:
        await house.chat(headers={"x-glassgate-hint": "cheap", "cookie": "a=b", "te": "trailers"})
        sent = upstream.headers[-1]
        assert (
            not {name for name in sent if name.startswith("x-glassgate")} | {"cookie"} & sent.keys()
        )
