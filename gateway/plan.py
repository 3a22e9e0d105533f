"""From a call to what is asked of whom: the release's upstream, then the family's fallbacks.

Also the other way: from what an upstream's failure says to what the client hears.
"""

import math
from typing import Any

from gateway.call import Call
from gateway.config import Release
from gateway.counting import estimate
from gateway.errors import (
    GatewayError,
    RateLimited,
    Rejected,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from gateway.local import LocalModel
from gateway.routing.attempts import Plan
from gateway.routing.failures import CLIENT_STATUSES
from gateway.setup import Setup
from gateway.upstream import Target, UpstreamError

PATHS = {
    "chat": "/chat/completions",
    "responses": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
MAX_TRACESTATE = 512  # characters, which is what everybody has to pass on


def make_plan(call: Call, setup: Setup, local: LocalModel | None) -> Plan:
    """Raises Unavailable when the only targets are ours and not up."""
    release = setup.config.releases[call.release]
    family = setup.config.families[call.family]
    names, larger = (release.upstream, *family.fallbacks), family.context_fallback
    room = _room(call, setup, local, release.upstream)
    if larger and room <= 0:
        names, room, larger = (larger,), _room(call, setup, local, larger), ""
    return Plan(
        targets=_standing(names, setup, local),
        path=PATHS[call.route],
        body=upstream_body(call, release, room),
        headers={
            "x-request-id": call.id,
            **trace_headers(call),
        },
        is_streamed=call.stream,
        num_choices=call.num_choices,
        larger=setup.targets[larger] if larger else None,
        recovery=family.stream_recovery,
        retries=setup.config.retries,
    )


def _room(call: Call, setup: Setup, local: LocalModel | None, upstream: str) -> float:
    """Tokens that the prompt most likely leaves for the answer; infinite where nobody knows."""
    context = setup.config.upstreams[upstream].context_length
    if local is not None and setup.config.upstreams[upstream].local == "model":
        context = context or local.context_length
    expected = estimate(call.bound_tokens, bool(setup.targets[upstream].tokenizer))
    return context - expected if context else math.inf


def targets_of(call: Call, setup: Setup) -> list[Target]:
    """All that may be asked, the release's own first."""
    family = setup.config.families[call.family]
    names = [setup.config.releases[call.release].upstream, *family.fallbacks]
    return [setup.targets[name] for name in [*names, *filter(None, [family.context_fallback])]]


def _standing(names: tuple[str, ...], setup: Setup, local: LocalModel | None) -> tuple[Target, ...]:
    """Without our own model server while it restarts: it is not asked in vain."""
    if local is None or local.is_ready:
        return tuple(setup.targets[name] for name in names)
    standing = tuple(setup.targets[n] for n in names if not setup.config.upstreams[n].local)
    if not standing:
        raise Unavailable("the model is starting", retry_after_s=local.retry_after_s)
    return standing


def trace_headers(call: Call) -> dict[str, str]:
    """The upstream's spans are below this request's; what vendors say of a trace goes on (W3C)."""
    headers = {"traceparent": call.trace.header}
    if call.trace.parent_id and (said := call.headers.get("tracestate", "")):
        headers["tracestate"] = said[:MAX_TRACESTATE]
    return headers


def upstream_body(call: Call, release: Release, room: float) -> dict[str, Any]:
    """The client's fields over the release's defaults, and these over its prompt's. A null is no
    field where there is a default. A bound that the client did not ask for is not sent where it
    does not fit into `room`: what does fit is less.

    What nobody reads here passes untouched.
    """
    if call.route == "embeddings":
        return {name: it for name, it in call.body.items() if name != "cache"}
    own = call.prompt.front.sampling if call.prompt else {}
    defaults = {**own, **release.sampling}
    said = {name: it for name, it in call.body.items() if it is not None or name not in defaults}
    body = {**defaults, **said}
    if call.messages is not None:
        body["messages"] = call.messages
    if call.route != "completions":
        body.pop("prompt", None)
    body.pop("cache", None)
    if call.max_tokens is None and 0 < release.default_max_tokens <= room:
        body["max_tokens"] = release.default_max_tokens
    if call.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def as_answer(error: UpstreamError) -> GatewayError:
    """What a client hears when nobody answered. Its own mistakes come back as they were said."""
    status = error.status or 0
    if status in CLIENT_STATUSES or status == 404:
        return Rejected(status, error.body)
    if status == 429:
        seconds = str(max(1, math.ceil(error.retry_after or 1.0)))
        return RateLimited("the upstream is busy", headers=(("retry-after", seconds),))
    if error.kind == "open" or status == 503:
        return Unavailable("no upstream can answer now", retry_after_s=error.retry_after or 1.0)
    if error.is_timeout:
        return UpstreamTimeout(f"the upstream did not answer in time ({error.kind})")
    return UpstreamFailed(f"the upstream failed ({error.kind})", code=f"upstream_{error.kind}")
