"""Traces for a collector: OTLP over HTTP, in its JSON encoding, which needs no library.

Sent as they are written to the store, a batch in one request. A collector that does not take one is
asked no second time: a trace is worth less than the memory that would hold it back.
Source: the OpenTelemetry protocol, https://opentelemetry.io/docs/specs/otlp/
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from gateway import semconv
from gateway.tracing.spans import Span, Trace, Value

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
INTERNAL, SERVER, CLIENT = 1, 2, 3  # SpanKind
ERROR = 2  # StatusCode


class Exporter:
    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            headers={"content-type": "application/json", **headers},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def send(self, traces: Sequence[Trace]) -> bool:
        """Whether the collector has taken them."""
        try:
            async with self._session.post(self._url, data=encode(traces)) as reply:
                if reply.status < 300:
                    return True
                log.error("the collector refuses traces with status %d", reply.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.error("the collector does not take traces: %s", str(error) or "timeout")
        return False

    async def aclose(self) -> None:
        await self._session.close()


def encode(traces: Sequence[Trace]) -> bytes:
    """An ExportTraceServiceRequest; ids in hex, 64-bit numbers as text."""
    spans = [_span(trace, span) for trace in traces for span in trace.spans]
    service = {"attributes": _attributes({"service.name": semconv.PROVIDER})}
    scope = {"scope": {"name": semconv.PROVIDER}, "spans": spans, "schemaUrl": semconv.SCHEMA_URL}
    return msgspec.json.encode({"resourceSpans": [{"resource": service, "scopeSpans": [scope]}]})


def _span(trace: Trace, span: Span) -> dict[str, Any]:
    kind = CLIENT if span.name.startswith("attempt ") else INTERNAL
    sent: dict[str, Any] = {
        "traceId": trace.trace_id,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "name": span.name,
        "kind": SERVER if span is trace.spans[0] else kind,
        "startTimeUnixNano": str((trace.started_us + span.start_us) * 1000),
        "endTimeUnixNano": str((trace.started_us + span.end_us) * 1000),
        "attributes": _attributes(span.attributes),
    }
    if semconv.ERROR_TYPE in span.attributes:
        sent["status"] = {"code": ERROR}
    return sent


def _attributes(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(it) for it in value]}}
    return {"stringValue": value}
