"""What Prometheus may know: counters that are lost at a restart. What must be kept is `ledger`'s.

Labels come only from closed sets (routes, outcomes, names in the config), so nobody outside can
make them grow. The children of a release are bound once.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from gateway.call import Call
from gateway.money import NANO

disable_created_metrics()  # type: ignore[no-untyped-call] # half of all lines, which nobody reads

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Bound(NamedTuple):
    """The children of one release on one route."""

    ended: Callable[[str], Counter]  # by outcome
    seconds: Histogram
    first_event: Histogram
    prompt: Counter
    cached: Counter
    completion: Counter
    cost: Counter


class Metrics:
    """One registry per process state, so that tests can have several."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._bound: dict[tuple[str, str, str], Bound] = {}
        release = ("route", "family", "release")
        self.requests = Counter(
            "glassgate_requests", "Finished requests.", (*release, "outcome"), registry=registry
        )
        self.seconds = Histogram(
            "glassgate_request_seconds",
            "From the request's last byte to the answer's.",
            release,
            buckets=SECONDS,
            registry=registry,
        )
        self.first_event = Histogram(
            "glassgate_first_event_seconds",
            "From the request's last byte to the first event of a stream.",
            release,
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "glassgate_tokens", "Tokens by kind.", (*release, "kind"), registry=registry
        )
        self.cost = Counter("glassgate_cost_usd", "US dollars spent.", release, registry=registry)
        self.attempts = Counter(
            "glassgate_attempts", "Requests to upstreams.", ("target", "outcome"), registry=registry
        )
        self._tried = lru_cache(self.attempts.labels)
        self.refused = Counter(
            "glassgate_refused",
            "Requests that were answered with an error.",
            ("code",),
            registry=registry,
        )
        self.soft_budgets = Counter(
            "glassgate_soft_budgets",
            "Requests let in over a soft budget.",
            ("subject",),
            registry=registry,
        )
        self.in_flight = Gauge("glassgate_in_flight", "Requests being answered.", registry=registry)
        self.heartbeats = Counter(
            "glassgate_heartbeats", "Comments sent while a stream was silent.", registry=registry
        )
        self.local_ready = Gauge(
            "glassgate_local_ready", "1 while the local model server answers.", registry=registry
        )
        self.local_restarts = Counter(
            "glassgate_local_restarts", "Lives of the local model server.", registry=registry
        )
        self.searches = Counter(
            "glassgate_searches",
            "Searches of vector stores: hybrid, words (no vectors), fallback (no embedder).",
            ("mode",),
            registry=registry,
        )
        self.ingested = Counter(
            "glassgate_ingested_passages", "Passages written.", registry=registry
        )
        self.reloads = Counter(
            "glassgate_config_reloads",
            "Changes of the config file.",
            ("result",),
            registry=registry,
        )

    def observe(self, call: Call, cost: int) -> None:
        """An admitted request has ended; `cost` in nano-dollars."""
        names = (call.route, call.family, call.release)
        bound = self._bound.get(names) or self._bind(names)
        bound.ended(call.outcome).inc()
        bound.seconds.observe(time.monotonic() - call.started)
        if call.attempts and call.attempts[-1].ttft is not None:
            first = call.attempts[-1].started + call.attempts[-1].ttft - call.started
            bound.first_event.observe(first)
        usage = call.usage
        for counter, amount in (
            (bound.prompt, usage.prompt),
            (bound.cached, usage.cached),
            (bound.completion, usage.completion),
            (bound.cost, cost / NANO),
        ):
            if amount:
                counter.inc(amount)
        for attempt in call.attempts:
            self._tried(attempt.target.name, attempt.outcome).inc()

    def _bind(self, names: tuple[str, str, str]) -> Bound:
        self._bound[names] = bound = Bound(
            lru_cache(lambda outcome: self.requests.labels(*names, outcome)),
            self.seconds.labels(*names),
            self.first_event.labels(*names),
            self.tokens.labels(*names, "prompt"),
            self.tokens.labels(*names, "cached"),
            self.tokens.labels(*names, "completion"),
            self.cost.labels(*names),
        )
        return bound
