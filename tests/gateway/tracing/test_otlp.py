"""Traces at a collector: what it gets is what OpenTelemetry's own schema reads."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.semconv import SCHEMA_URL
from gateway.tracing.otlp import encode
from gateway.tracing.spans import Span, Trace, Value

pytestmark = pytest.mark.anyio

SAMPLED = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


class Collector:
    """The smallest one: it takes batches and answers `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.batches: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        await self.batches.put((headers, await request.read()))
        return web.json_response({}, status=self.status)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def test_a_collector_gets_the_spans(open_house: Any, upstream: Any) -> None:
    async with collecting() as collector:
        sent = {"otlp": collector.url, "otlp_headers": {"x-tenant": "glass"}}
        async with open_house({"traces": sent}) as house:
            upstream.status = 500
            await house.chat(headers=SAMPLED)
            headers, raw = await collector.batches.get()
            await house.state.traces.flush()
            assert house.state.traces.counts["sent"] == 1
    assert (headers["content-type"], headers["x-tenant"]) == ("application/json", "glass")
    (resource,) = json.loads(raw)["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    assert scope["schemaUrl"] == SCHEMA_URL
    root, *spans = scope["spans"]
    assert (root["traceId"], root["parentSpanId"], root["kind"]) == ("a" * 32, "b" * 16, 2)
    assert root["status"] == {"code": 2}
    assert int(root["startTimeUnixNano"]) < int(root["endTimeUnixNano"])
    about = {it["key"]: it["value"] for it in root["attributes"]}
    assert about["http.response.status_code"] == {"intValue": "502"}
    assert about["gen_ai.request.model"] == {"stringValue": "town"}
    assert {it["parentSpanId"] for it in spans} <= {it["spanId"] for it in scope["spans"]}


async def test_a_collector_that_fails_costs_its_traces_alone(open_house: Any) -> None:
    async with collecting() as collector:
        collector.status = 503
        async with open_house({"traces": {"otlp": collector.url}}) as house:
            await house.chat(headers=SAMPLED)
            await collector.batches.get()
            await house.state.traces.flush()
            assert house.state.traces.counts == {"kept": 1, "unsent": 1}
            assert (await house.ask("GET", f"/v1/traces/{'a' * 32}")).status == 200


async def test_nobody_listens(open_house: Any) -> None:
    async with open_house({"traces": {"otlp": "http://127.0.0.1:9/v1"}}) as house:
        await house.chat(headers=SAMPLED)
        await house.state.traces.flush()
        assert house.state.traces.counts["kept"] == 1


def test_the_schema_reads_it() -> None:
    """OpenTelemetry's own messages, where their package is installed."""
    trace_pb2 = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    json_format = pytest.importorskip("google.protobuf.json_format")
    about: dict[str, Value] = {
        "gen_ai.request.model": "m",
        "n": 1,
        "share": 0.5,
        "ok": True,
        "error.type": "x",
        "gen_ai.response.finish_reasons": ["stop"],
    }
    spans = [Span("b" * 16, "", "chat m", 0, 10, about), Span("c" * 16, "b" * 16, "answer", 1, 9)]
    said = json.loads(encode([Trace("a" * 32, "r", "", 1_000, spans)]))
    read = json_format.ParseDict(said, trace_pb2.ExportTraceServiceRequest())
    (root, child) = read.resource_spans[0].scope_spans[0].spans
    assert (root.start_time_unix_nano, child.end_time_unix_nano) == (1_000_000, 1_009_000)
    assert {it.key: it.value.WhichOneof("value") for it in root.attributes} == {
        "gen_ai.request.model": "string_value",
        "n": "int_value",
        "share": "double_value",
        "ok": "bool_value",
        "error.type": "string_value",
        "gen_ai.response.finish_reasons": "array_value",
    }
    reasons = root.attributes[-1].value.array_value
    assert [it.string_value for it in reasons.values] == ["stop"]
