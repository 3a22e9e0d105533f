"""From the marks on a Call to spans: what happened to one request, and when.

    request            from its body to its settlement
    ├── release, admit, cache, retrieve, render …     the stages that it went through, in order
    ├── answer         all that came between the last of them and the settlement
    │   └── attempt    one for each request to an upstream
    │       ├── first token
    │       └── stream
    └── settle

What a client wrote is in none of them unless the config says so.
"""

import time
from collections.abc import Iterator

import msgspec

from gateway import money, semconv
from gateway.call import Call
from gateway.money import NANO
from gateway.routing.attempts import Attempt
from gateway.trace import new_id

Value = str | int | float | bool | list[str]
MAX_MESSAGES = 16_384  # characters of what was asked, where it is kept


class Span(msgspec.Struct, frozen=True):
    """Times in microseconds since the trace began; `parent` is a span's id, or the caller's."""

    id: str
    parent: str
    name: str
    start_us: int
    end_us: int
    attributes: dict[str, Value] = {}


class Trace(msgspec.Struct, frozen=True):
    """One request's; the first span is the request itself. `started_us` since 1970."""

    trace_id: str
    request_id: str
    key: str
    started_us: int
    spans: list[Span]


def make_trace(call: Call, cost: int, with_messages: bool) -> Trace:
    """Of a call that is settled, for `cost` nano-dollars."""
    age = time.monotonic() - call.started
    attributes = _about(call) | {"glassgate.cost_usd": cost / NANO}
    if with_messages and (asked := call.body.get("messages") or call.body.get("input")):
        attributes[semconv.INPUT_MESSAGES] = msgspec.json.encode(asked).decode()[:MAX_MESSAGES]
    place = call.trace
    name = f"{attributes[semconv.OPERATION_NAME]} {call.family}"
    root = Span(place.span_id, place.parent_id, name, 0, _us(age), attributes)
    return Trace(
        place.trace_id,
        call.id,
        call.principal.key_id,
        time.time_ns() // 1000 - _us(age),
        [root, *_stages(call, root.id)],
    )


def _about(call: Call) -> dict[str, Value]:
    about: dict[str, Value] = {
        semconv.OPERATION_NAME: semconv.OPERATIONS[call.route],
        semconv.PROVIDER_NAME: semconv.PROVIDER,
        semconv.REQUEST_MODEL: call.family,
        semconv.RESPONSE_MODEL: call.release,
        semconv.STATUS_CODE: call.status,
        semconv.INPUT_TOKENS: call.usage.prompt,
        semconv.OUTPUT_TOKENS: call.usage.completion,
        "glassgate.outcome": call.outcome,
        "glassgate.cache": call.cache,
        "glassgate.cost_usd": money.show(call.cost),
        "glassgate.team": call.principal.team,
    }
    if call.finish:
        about[semconv.FINISH_REASONS] = [call.finish]
    if call.status >= 400:
        about[semconv.ERROR_TYPE] = call.outcome
    return about


def _stages(call: Call, parent: str) -> Iterator[Span]:
    begun = call.started
    for stage, ended in call.marks:
        span = Span(new_id(8), parent, stage, _us(begun - call.started), _us(ended - call.started))
        yield span
        if stage == "answer":
            for attempt in call.attempts:
                yield from _attempt(attempt, span.id, call.started)
        begun = ended


def _attempt(attempt: Attempt, parent: str, origin: float) -> Iterator[Span]:
    begun, ended = attempt.started - origin, attempt.started + attempt.latency - origin
    about: dict[str, Value] = {"outcome": attempt.outcome, "chunks": attempt.num_chunks}
    if attempt.status is not None:
        about[semconv.STATUS_CODE] = attempt.status
    name = f"attempt {attempt.target.name}"
    span = Span(new_id(8), parent, name, _us(begun), _us(ended), about)
    yield span
    if attempt.ttft is not None:
        first = begun + attempt.ttft
        yield Span(new_id(8), span.id, "first token", _us(begun), _us(first))
        yield Span(new_id(8), span.id, "stream", _us(first), _us(ended))


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
