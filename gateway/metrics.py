"""What Prometheus may know: numbers that are lost at a restart. What must be kept is `ledger`'s.

Labels come only from closed sets (routes, outcomes, names in the config), so nobody outside can
make them grow. What every request adds to are plain numbers, told when Prometheus asks; the rest
are the library's own counters.
"""

import time
from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.call import Call
from gateway.money import NANO
from gateway.routing.balance import State

disable_created_metrics()  # type: ignore[no-untyped-call] # half of all lines, which nobody reads

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RELEASE = ("route", "family", "release")


Load = tuple[str, int, Count[State]]  # a target, its attempts under way, its replicas' states


class Times:
    """A histogram: how many waits ended in each bucket, and how long all of them were."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> Sequence[tuple[str, float]]:
        bounds = [*map(str, SECONDS), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


class Tally:
    """All requests of one release on one route."""

    def __init__(self) -> None:
        self.outcomes: Count[str] = Count()
        self.seconds = Times()
        self.first_event = Times()
        self.tokens = {"prompt": 0, "cached": 0, "completion": 0}
        self.cost = 0  # nano-dollars


class Metrics:
    """One registry per process state, so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tallies: dict[tuple[str, ...], Tally] = {}
        self._attempts: Count[tuple[str, str]] = Count()
        self.upstreams: Callable[[], Iterable[Load]] = tuple
        self.registry.register(self)
        self.refused = self._counter("refused", "Requests answered with an error.", "code")
        self.soft_budgets = self._counter(
            "soft_budgets", "Requests let in over a soft budget.", "subject"
        )
        self.heartbeats = self._counter("heartbeats", "Comments sent in a silent stream.")
        self.reloads = self._counter("config_reloads", "Changes of the config file.", "result")
        self.local_restarts = self._gauge("local_restarts", "Ends of the local model server.")
        self.local_ready = self._gauge("local_ready", "1 while the local model server answers.")
        self.in_flight = self._gauge("in_flight", "Requests being answered.")
        self.waiting = self._gauge("waiting", "Requests that wait for admission.", "family")
        self.leases_lapsed = self._gauge("leases_lapsed", "Leases that ended under a request.")
        self.journal_bytes = self._gauge("journal_bytes", "Journal that is not in the store yet.")
        self.ledger_open = self._gauge("ledger_open", "Requests begun and not settled.")
        self.ledger_rows = self._gauge("ledger_rows", "Rows written since the start.")
        self.ledger_torn = self._gauge("ledger_torn", "Unreadable lines of the journal.")
        self.ledger_failures = self._gauge("ledger_failures", "Writes that the store refused.")
        self.searches = self._counter(
            "searches", "By mode: hybrid, words (no vectors), fallback (no embedder).", "mode"
        )
        self.cache_look_ups = self._gauge(
            "answer_cache_look_ups", "Requests by hit, semantic, miss, bypass.", "status"
        )
        self.cache_bytes = self._gauge("answer_cache_bytes", "Kept answers in memory.")
        self.cache_evictions = self._gauge("answer_cache_evictions", "Answers that made room.")
        self.cache_saved_tokens = self._gauge("answer_cache_saved_tokens", "Of kept answers.")
        self.citations = self._counter(
            "citations", "Sentences cited, and marks dropped that no passage holds.", "verdict"
        )
        self.groundedness = Histogram(
            "glassgate_groundedness",
            "Of each answer with passages, the share of sentences that they support.",
            buckets=[tenth / 10 for tenth in range(11)],
            registry=self.registry,
        )
        self.ingested = self._counter("ingested_passages", "Passages written.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"glassgate_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"glassgate_{name}", meaning, labels, registry=self.registry)

    def refuse(self, code: str) -> None:
        self.refused.labels(code).inc()

    def observe(self, call: Call, cost: int) -> None:
        """An admitted request has ended; `cost` in nano-dollars."""
        names = (call.route, call.family, call.release)
        tally = self._tallies.get(names) or self._tallies.setdefault(names, Tally())
        tally.outcomes[call.outcome] += 1
        tally.seconds.add(time.monotonic() - call.started)
        if call.attempts and (ttft := call.attempts[-1].ttft) is not None:
            tally.first_event.add(call.attempts[-1].started + ttft - call.started)
        tally.tokens["prompt"] += call.usage.prompt
        tally.tokens["cached"] += call.usage.cached
        tally.tokens["completion"] += call.usage.completion
        tally.cost += cost
        for verdict in call.verdicts:
            self.citations.labels("verified").inc(len(verdict.citations))
            self.citations.labels("dropped").inc(verdict.num_unverified)
            if verdict.groundedness is not None:
                self.groundedness.observe(verdict.groundedness)
        for attempt in call.attempts:
            self._attempts[attempt.target.name, attempt.outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """Prometheus asks."""
        requests = _family("requests", "Finished requests.", "outcome")
        tokens = _family("tokens", "Tokens by kind: cached are part of prompt.", "kind")
        cost = _family("cost_usd", "US dollars spent.")
        seconds = _times("request_seconds", "From the request to its end.")
        first_event = _times("first_event_seconds", "From the request to the first content.")
        for names, tally in self._tallies.items():
            for outcome, count in tally.outcomes.items():
                requests.add_metric([*names, outcome], count)
            for kind, count in tally.tokens.items():
                tokens.add_metric([*names, kind], count)
            cost.add_metric(names, tally.cost / NANO)
            seconds.add_metric(names, tally.seconds.buckets(), tally.seconds.total)
            first_event.add_metric(names, tally.first_event.buckets(), tally.first_event.total)
        attempts = CounterMetricFamily(
            "glassgate_attempts", "Requests to upstreams.", labels=("target", "outcome")
        )
        for pair, count in self._attempts.items():
            attempts.add_metric(pair, count)
        yield from (requests, tokens, cost, seconds, first_event, attempts)
        yield from self._collect_upstreams()

    def _collect_upstreams(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "glassgate_upstream_in_flight", "Attempts under way.", labels=["target"]
        )
        replicas = GaugeMetricFamily(
            "glassgate_upstream_replicas",
            "By breaker: closed, open, half_open; held are closed and want to be left alone.",
            labels=["target", "state"],
        )
        for target, num_in_flight, states in self.upstreams():
            in_flight.add_metric([target], num_in_flight)
            for state in get_args(State):
                replicas.add_metric([target, state], states[state])
        yield from (in_flight, replicas)


def _family(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"glassgate_{name}", meaning, labels=(*RELEASE, *labels))


def _times(name: str, meaning: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"glassgate_{name}", meaning, labels=RELEASE)
