"""What Prometheus may know: numbers that are lost at a restart. What must be kept is `ledger`'s.

Labels come only from closed sets (routes, outcomes, names in the config), so nobody outside can
make them grow. What every request adds to is in `tallies`; what the parts count themselves is read
when Prometheus asks; the rest are the library's own counters.
"""

import platform
from collections import Counter as Count
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway import semconv
from gateway.call import Call
from gateway.limits.rules import WINDOWS, Grant, Refusal
from gateway.routing.balance import State
from gateway.tallies import Tallies

disable_created_metrics()  # type: ignore[no-untyped-call] # half of all lines, which nobody reads

WAIT_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SUBJECTS = ("global", "family", "team", "key")  # whose a limit is

Load = tuple[str, int, Count[State]]  # a target, its attempts under way, its replicas' states
Family = Callable[..., CounterMetricFamily | GaugeMetricFamily]


class Told:
    """A number that a part keeps itself, or several under one label."""

    def __init__(self, family: Family, name: str, meaning: str, *labels: str) -> None:
        self._new = partial(family, f"glassgate_{name}", meaning, labels=labels)
        self._read: dict[tuple[str, ...], Callable[[], float]] = {}

    def set_function(self, read: Callable[[], float], *labels: str) -> None:
        self._read[labels] = read

    def collect(self) -> Iterator[Metric]:
        family = self._new()
        for labels, read in self._read.items():
            family.add_metric(labels, read())
        yield family


class Metrics:
    """One registry per process state, so that tests can have several."""

    def __init__(self, tenants: Collection[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._tallies = Tallies(tenants)
        self.upstreams: Callable[[], Iterable[Load]] = tuple
        self.registry.register(self)
        self._tell_build()
        self._make_doors()
        self._make_stores()
        self._make_answers()

    def _tell_build(self) -> None:
        labels = {
            "version": version("glassgate"),
            "python": platform.python_version(),
            "semconv": semconv.VERSION,
        }
        build = Gauge(
            "glassgate_build_info", "What runs here; always 1.", labels, registry=self.registry
        )
        build.labels(**labels).set(1)

    def _make_doors(self) -> None:
        self.refused = self._counter(
            "refused", "Requests turned away before they were let in.", "code", "status"
        )
        self.decisions = self._counter(
            "limit_decisions",
            "Of the limits: granted, or why not, and which kind of rule of whom refused.",
            *("decision", "kind", "subject"),
        )
        self._granted = self.decisions.labels("granted", "", "")
        for kind, subject in product(sorted(WINDOWS), SUBJECTS):  # there is no rise from nothing
            self.decisions.labels("limited", kind, subject).inc(0)
        self.soft_budgets = self._counter(
            "soft_budgets", "Requests let in over a soft budget.", "subject"
        )
        self.queue_wait = Histogram(
            "glassgate_queue_wait_seconds",
            "Waits for admission, by how they ended.",
            ("outcome",),
            buckets=WAIT_S,
            registry=self.registry,
        )
        self.heartbeats = self._counter("heartbeats", "Comments sent in a silent stream.")
        self.reloads = self._counter("config_reloads", "Changes of the config file.", "result")
        self.local_restarts = self._count("local_restarts", "Ends of the local model server.")
        self.local_ready = self._gauge("local_ready", "1 while the local model server answers.")
        self.in_flight = self._gauge("in_flight", "Requests being answered.")
        self.waiting = self._gauge("waiting", "Requests that wait for admission.", "family")
        self.reservations = self._gauge("reservations", "Reservations that are not settled.")
        self.leases_lapsed = self._count("leases_lapsed", "Leases that ended under a request.")

    def _make_stores(self) -> None:
        self.journal_bytes = self._gauge("journal_bytes", "Journal that is not in the store yet.")
        self.ledger_open = self._gauge("ledger_open", "Requests begun and not settled.")
        self.ledger_rows = self._count("ledger_rows", "Rows written since the start.")
        self.ledger_torn = self._count("ledger_torn", "Unreadable lines of the journal.")
        self.ledger_failures = self._count("ledger_failures", "Writes that the store refused.")
        self.traces = self._count(
            "traces", "Traces kept, dropped, sent to the collector, unsent.", "result"
        )

    def _make_answers(self) -> None:
        self.searches = self._counter(
            "searches", "By mode: hybrid, words (no vectors), fallback (no embedder).", "mode"
        )
        self.cache_look_ups = self._count(
            "answer_cache_look_ups", "Requests by hit, semantic, miss, bypass.", "status"
        )
        self.cache_bytes = self._gauge("answer_cache_bytes", "Kept answers in memory.")
        self.cache_evictions = self._count("answer_cache_evictions", "Answers that made room.")
        self.cache_saved_tokens = self._count("answer_cache_saved_tokens", "Of kept answers.")
        self.cache_saved_cost = self._count("answer_cache_saved_usd", "US dollars not spent again.")
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

    def _count(self, name: str, meaning: str, *labels: str) -> Told:
        return self._told(Told(CounterMetricFamily, name, meaning, *labels))

    def _gauge(self, name: str, meaning: str, *labels: str) -> Told:
        return self._told(Told(GaugeMetricFamily, name, meaning, *labels))

    def _told(self, told: Told) -> Told:
        self.registry.register(told)
        return told

    def refuse(self, code: str, status: int = 400) -> None:
        self.refused.labels(code, f"{status // 100}xx").inc()

    def decide(self, decision: Grant | Refusal) -> None:
        if isinstance(decision, Grant):
            self._granted.inc()
        else:
            demand = decision.demand
            subject = demand.subject.partition(":")[0]
            self.decisions.labels(decision.reason, demand.rule.kind, subject).inc()

    def waited(self, outcome: str, seconds: float) -> None:
        self.queue_wait.labels(outcome).observe(seconds)

    def observe(self, call: Call, cost: int, upstream: str) -> None:
        """An admitted request has ended; `cost` in nano-dollars, `upstream` its release's own."""
        self._tallies.add(call, cost, upstream)
        for verdict in call.verdicts:
            self.citations.labels("verified").inc(len(verdict.citations))
            self.citations.labels("dropped").inc(verdict.num_unverified)
            if verdict.groundedness is not None:
                self.groundedness.observe(verdict.groundedness)

    def collect(self) -> Iterator[Metric]:
        """Prometheus asks."""
        yield from self._tallies.collect()
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
