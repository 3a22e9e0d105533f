"""What Prometheus may know: counters that are lost at a restart. What must be kept is `ledger`'s.

Labels come only from closed sets (routes, outcomes, names in the config), so nobody outside can
make them grow. The children of a release are bound once.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.call import Call

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One registry per process state, so that tests can have several."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
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
            "glassgate_attempts", "Requests to upstreams.", ("target",), registry=registry
        )
        self.refused = Counter(
            "glassgate_refused", "Requests refused before a release.", ("code",), registry=registry
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
        self.reloads = Counter(
            "glassgate_config_reloads",
            "Changes of the config file.",
            ("result",),
            registry=registry,
        )

    def observe(self, call: Call, seconds: float) -> None:
        """A request has ended."""
        names = (call.route, call.family, call.release)
        self.requests.labels(*names, call.outcome).inc()
        self.seconds.labels(*names).observe(seconds)
