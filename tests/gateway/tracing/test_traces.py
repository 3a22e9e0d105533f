"""What is kept of a request's way, who may see it, and for how long."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.store import traces
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create

pytestmark = pytest.mark.anyio

SAMPLED = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


async def trace_of(house: Any, name: str, **more: Any) -> dict[str, Any]:
    reply = await house.ask("GET", f"/v1/traces/{name}", **more)
    assert reply.status == 200, await reply.text()
    found: dict[str, Any] = await reply.json()
    return found


async def test_the_stages_of_a_request_are_its_spans(open_house: Any) -> None:
    prices = [{"prompt": "1", "completion": "2"}]
    async with open_house({"upstreams": {"up": {"prices": prices}}}) as house:
        reply = await house.chat(stream=True, temperature=0, headers=SAMPLED)
        await reply.read()
        assert reply.headers["traceresponse"].startswith("00-" + "a" * 32)
        trace = await trace_of(house, "a" * 32)
        assert trace == await trace_of(house, reply.headers["x-request-id"])
        root, *spans = trace["spans"]
        assert [span["name"] for span in spans] == [
            "release", "admit", "cache", "answer", "attempt up", "first token", "stream", "settle"
        ]  # fmt: skip
        assert (root["name"], root["parent"]) == ("chat town", "b" * 16)
        about = root["attributes"]
        assert about["gen_ai.usage.output_tokens"] == 3
        assert about["gen_ai.response.finish_reasons"] == ["stop"]
        assert about["glassgate.cache"] == "miss"
        assert about["glassgate.cost_usd"] == pytest.approx((7 * 1 + 3 * 2) / 1e6)
        assert "gen_ai.input.messages" not in about
        sent = house.upstream.headers[-1]["traceparent"]
        assert sent == f"00-{'a' * 32}-{root['id']}-01"


async def test_a_trace_of_several_requests_is_shown_whole(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.traces.MAX_FOUND", 3)
    async with open_house() as house:
        replies = [await house.chat(headers=SAMPLED, user=word) for word in "abcd"]
        names = [reply.headers["x-request-id"] for reply in replies]
        trace = await trace_of(house, "a" * 32)
        assert trace["request_id"] == names[3]
        assert [it["request_id"] for it in trace["older"]] == [names[2], names[1]]
        assert trace["older"][0]["spans"][0]["name"] == "chat town"
        one = await trace_of(house, names[0])
        assert (one["request_id"], one["older"]) == (names[0], [])


async def test_what_vendors_say_of_a_trace_goes_on_with_it(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat(headers=SAMPLED | {"tracestate": "vendor=1"})
        assert house.upstream.headers[-1]["tracestate"] == "vendor=1"
        await house.chat(headers={"tracestate": "vendor=1"}, user="without a parent")
        assert "tracestate" not in house.upstream.headers[-1]


async def test_spans_lie_within_their_parents(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat(headers=SAMPLED)
        spans = {it["id"]: it for it in (await trace_of(house, "a" * 32))["spans"]}
        begins = 0
        for span in list(spans.values())[1:]:
            parent = spans[span["parent"]]
            assert parent["start_us"] <= span["start_us"] <= span["end_us"] <= parent["end_us"]
            assert span["start_us"] >= begins
            begins = span["start_us"] if span["name"] != "stream" else begins


async def test_a_kept_answer_has_no_attempt(open_house: Any) -> None:
    async with open_house() as house:
        await house.chat(temperature=0, headers=SAMPLED)
        reply = await house.chat(temperature=0, headers=SAMPLED)
        assert reply.headers["x-cache"] == "hit"
        spans = (await trace_of(house, reply.headers["x-request-id"]))["spans"]
        assert spans[0]["attributes"]["glassgate.cache"] == "hit"
        assert not [span for span in spans if span["name"].startswith("attempt")]


async def test_what_is_sampled_out_is_kept_when_we_fail(open_house: Any, upstream: Any) -> None:
    over = {"traces": {"sample": 0.0}, "retries": {"per_target": 0, "attempts": 1}}
    async with open_house(over) as house:
        reply = await house.chat()
        name = reply.headers["x-request-id"]
        assert (await house.ask("GET", f"/v1/traces/{name}")).status == 404
        upstream.status = 400
        reply = await house.chat()
        name = reply.headers["x-request-id"]
        assert (await house.ask("GET", f"/v1/traces/{name}")).status == 404
        upstream.status = 500
        reply = await house.chat(user="another")
        trace = await trace_of(house, reply.headers["x-request-id"])
        root, *_, attempt, _settle = trace["spans"]
        assert reply.headers["traceresponse"][:35] == f"00-{trace['trace_id']}"
        assert root["attributes"]["error.type"] == "upstream_status"
        assert "gen_ai.response.finish_reasons" not in root["attributes"]
        assert attempt["attributes"]["http.response.status_code"] == 500


async def test_a_trace_is_for_who_asked_and_who_administers(open_house: Any) -> None:
    async with open_house() as house:
        names = {"ann": ("infer",), "bob": ("infer",), "root": ("admin", "infer")}
        keys = {
            name: await house.state.store.write(
                create, By("test", ""), OPERATOR, NewKey(name=name, scopes=scopes)
            )
            for name, scopes in names.items()
        }
        await house.state.mirror.refresh()
        headers = {name: {"authorization": f"Bearer {text}"} for name, (_, text) in keys.items()}
        await house.chat(headers=headers["ann"] | SAMPLED)
        path = f"/v1/traces/{'a' * 32}"
        found = {
            name: (await house.ask("GET", path, headers=headers[name])).status for name in names
        }
        assert found == {"ann": 200, "bob": 404, "root": 200}
        assert (await house.ask("GET", path)).status == 401


async def test_what_was_asked_is_kept_if_the_config_says_so(open_house: Any) -> None:
    async with open_house({"traces": {"prompts": True}}) as house:
        await house.chat(headers=SAMPLED)
        root = (await trace_of(house, "a" * 32))["spans"][0]
        (message,) = json.loads(root["attributes"]["gen_ai.input.messages"])
        assert message["content"] == "capital of France?"


async def test_traces_are_forgotten_by_age_and_by_number(open_house: Any) -> None:
    async with open_house({"traces": {"sample": 1.0}}) as house:
        names = []
        for i in range(6):
            reply = await house.chat(user=str(i))
            names.append(reply.headers["x-request-id"])
        store = house.state.store
        await house.state.traces.flush()
        assert await store.write(traces.prune, "", 4) == 2
        found = [await store.read(traces.find, name) for name in names]
        assert [len(it) == 1 for it in found] == [False, False, True, True, True, True]
        assert await store.write(traces.prune, "f" * 12, 100) == 4


async def test_a_flood_of_traces_is_bounded(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.tracing.recorder.MAX_WAITING", 2)
    monkeypatch.setattr("gateway.tracing.recorder.FLUSH_S", 3600)
    async with open_house({"traces": {"sample": 1.0}}) as house:
        for i in range(3):
            await house.chat(user=str(i))
        assert house.state.traces.counts == {"dropped": 1}
        await house.state.traces.flush()
        assert house.state.traces.counts == {"dropped": 1, "kept": 2}


async def test_the_command_draws_the_waterfall(open_house: Any, tmp_path: Path) -> None:
    async with open_house() as house:
        await house.chat(stream=True, headers=SAMPLED | {"x-request-id": "mine"})
        await (await house.chat(stream=True, headers=SAMPLED | {"x-request-id": "mine"})).read()
        await house.state.traces.flush()
        config = tmp_path / "gateway.toml"
        config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\n')
        words = ["trace", "mine", "--config", str(config)]
        done = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert done.exit_code == 0, done.output
        head, first, *rest = done.output.splitlines()
        assert head == f"trace {'a' * 32}  request mine"
        assert rest.count(head) == 1
        assert "gen_ai.response.finish_reasons=stop" in first
        assert first.startswith("chat town")
        assert "█" * 40 in first
        assert any(line.startswith("    attempt up ") for line in rest)
        assert any(line.startswith("      first token ") for line in rest)
        words[1] = "nobody's"
        assert (await asyncio.to_thread(CliRunner().invoke, main, words)).exit_code == 1
