"""What every admitted request adds to: plain numbers, made into Prometheus' families when it asks.

Names come from the config, outcomes and targets too; what an upstream or a client says is counted
under a word of ours or as `other`. So nobody outside can make a series grow.
"""

import time
from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar

from gateway import semconv
from gateway.call import Call
from gateway.money import NANO
from gateway.routing.attempts import GAP_S, Attempt

OVERHEAD_S = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0,
)  # fmt: skip
STAGE_S = (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SIMILARITY = (0.8, 0.85, 0.9, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)
FINISHES = {"", "stop", "length", "tool_calls", "function_call", "content_filter"}
KEPT = {"hit", "semantic"}
RELEASE = ("route", "family", "release")
OTEL = tuple(
    map(semconv.label, (semconv.OPERATION_NAME, semconv.REQUEST_MODEL, semconv.RESPONSE_MODEL))
)

Names = tuple[str, ...]


class Spread:
    """A histogram: how many values ended in each bucket, their sum, a traced one of each."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, value: float, trace_id: str = "") -> None:
        place = bisect_left(self.bounds, value)
        self.counts[place] += 1
        self.total += value
        if trace_id:
            self.exemplars[place] = Exemplar({"trace_id": trace_id}, value, time.time())

    def put(self, family: HistogramMetricFamily, names: Sequence[str]) -> None:
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        sums = zip(bounds, accumulate(self.counts), strict=True)
        buckets = [(*it, self.exemplars.get(place)) for place, it in enumerate(sums)]
        family.add_metric(names, buckets, self.total)  # type: ignore[arg-type] # None is taken


class Tally:
    """All requests of one release on one route."""

    def __init__(self) -> None:
        self.ends: Count[tuple[str, str, str]] = Count()  # outcome, class of status, finish
        self.seconds: dict[str, Spread] = {}  # by what the request ended in; "" = well
        self.first_token = Spread(semconv.FIRST_TOKEN.bounds)
        self.per_token = Spread(semconv.PER_TOKEN.bounds)
        self.gaps = Spread(GAP_S)
        self.overhead = Spread(OVERHEAD_S)
        self.sizes = {it: Spread(semconv.TOKENS.bounds) for it in ("input", "output")}
        self.num_cached = 0
        self.cost = 0  # nano-dollars

    def add(self, call: Call, cost: int, ended: float) -> None:
        status = f"{call.status // 100}xx"
        finish = call.finish if call.finish in FINISHES else "other"
        self.ends[call.outcome, status, finish] += 1
        error = "" if call.outcome == "ok" else status
        trace_id = call.trace.trace_id if call.trace.is_sampled else ""
        if error not in self.seconds:
            self.seconds[error] = Spread(semconv.DURATION.bounds)
        total = ended - call.started
        self.seconds[error].add(total, trace_id)
        if call.attempts or call.cache in KEPT:
            self.overhead.add(max(0.0, total - sum(it.latency for it in call.attempts)))
        if call.stream and not error:
            self._add_stream(call, trace_id)
        usage = call.usage
        if usage.prompt or usage.completion:
            self.sizes["input"].add(usage.prompt)
            self.sizes["output"].add(usage.completion)
        self.num_cached += usage.cached
        self.cost += cost

    def _add_stream(self, call: Call, trace_id: str) -> None:
        if call.cache in KEPT:
            self.first_token.add(dict(call.marks)["cache"] - call.started, trace_id)
        if not call.attempts or (ttft := call.attempts[-1].ttft) is None:
            return
        last = call.attempts[-1]
        first = last.started + ttft
        self.first_token.add(first - call.started, trace_id)
        if call.usage.completion > 1 and last.last_chunk > first:
            self.per_token.add((last.last_chunk - first) / (call.usage.completion - 1), trace_id)
        if last.gaps_s:
            self.gaps.total += last.gaps_s
            self.gaps.counts = [a + b for a, b in zip(self.gaps.counts, last.gaps, strict=True)]


class Tallies:
    """`tenants` are told by name; all others together are `other`."""

    def __init__(self, tenants: Collection[str]) -> None:
        self._tenants = frozenset(tenants)
        self._tallies: dict[Names, Tally] = {}
        self._stages: dict[str, Spread] = {}
        self._attempts: Count[Names] = Count()
        self._by_tenant: dict[str, Count[str]] = {}
        self._similarity = Spread(SIMILARITY)

    def add(self, call: Call, cost: int, upstream: str) -> None:
        """Of a call that has ended; `cost` in nano-dollars, `upstream` its release's own."""
        names = (call.route, call.family, call.release)
        tally = self._tallies.get(names) or self._tallies.setdefault(names, Tally())
        ended = call.marks[-1][1] if call.marks else time.monotonic()
        tally.add(call, cost, ended)
        begun = call.started
        for stage, ended in call.marks:
            if stage not in self._stages:
                self._stages[stage] = Spread(STAGE_S)
            self._stages[stage].add(ended - begun)
            begun = ended
        for attempt, kind in _kinds(call.attempts, upstream):
            self._attempts[attempt.target.name, kind, attempt.outcome] += 1
        tenant = self._by_tenant.setdefault(self._tenant(call), Count())
        tenant["requests"] += 1
        tenant["tokens"] += call.usage.prompt + call.usage.completion
        tenant["cost"] += cost
        if call.similarity is not None:
            self._similarity.add(call.similarity)

    def _tenant(self, call: Call) -> str:
        who = call.principal
        for name in (f"key:{who.key_id}", f"team:{who.team}") if self._tenants else ():
            if name in self._tenants:
                return name
        return "other"

    def collect(self) -> Iterator[Metric]:
        yield from self._collect_counts()
        yield from self._collect_spreads()
        yield from self._collect_tenants()
        stages = _spread("stage_seconds", "Of the stages of a request.", "stage")
        for stage, spread in self._stages.items():
            spread.put(stages, [stage])
        similarity = _spread("answer_cache_similarity", "Cosines of semantic hits.")
        self._similarity.put(similarity, [])
        attempts = _count(
            "attempts",
            "Requests to upstreams: the first, a retry there, a fallback elsewhere.",
            "target",
            "kind",
            "outcome",
        )
        for names, count in self._attempts.items():
            attempts.add_metric(names, count)
        yield from (stages, similarity, attempts)

    def _collect_counts(self) -> Iterator[Metric]:
        ends = ("outcome", "status", "finish")
        requests = _count("requests", "Requests that were let in, ended.", *RELEASE, *ends)
        tokens = _count("tokens", "Tokens by kind: cached are part of prompt.", *RELEASE, "kind")
        cost = _count("cost_usd", "US dollars spent.", *RELEASE)
        for names, tally in self._tallies.items():
            for end, count in tally.ends.items():
                requests.add_metric([*names, *end], count)
            tokens.add_metric([*names, "prompt"], tally.sizes["input"].total)
            tokens.add_metric([*names, "cached"], tally.num_cached)
            tokens.add_metric([*names, "completion"], tally.sizes["output"].total)
            cost.add_metric(names, tally.cost / NANO)
        yield from (requests, tokens, cost)

    def _collect_spreads(self) -> Iterator[Metric]:
        overhead = _spread("overhead_seconds", "Of a request, all but the upstream's.", *RELEASE)
        gaps = _spread("chunk_gap_seconds", "Between pieces of a stream.", *RELEASE)
        seconds = _otel(semconv.DURATION, semconv.label(semconv.ERROR_TYPE))
        first, each = _otel(semconv.FIRST_TOKEN), _otel(semconv.PER_TOKEN)
        sizes = _otel(semconv.TOKENS, semconv.label(semconv.TOKEN_TYPE))
        for names, tally in self._tallies.items():
            route, family, release = names
            theirs = (semconv.OPERATIONS[route], family, release, semconv.PROVIDER, route)
            tally.overhead.put(overhead, names)
            tally.gaps.put(gaps, names)
            tally.first_token.put(first, theirs)
            tally.per_token.put(each, theirs)
            for error, spread in tally.seconds.items():
                spread.put(seconds, [*theirs, error])
            for kind, spread in tally.sizes.items():
                spread.put(sizes, [*theirs, kind])
        yield from (overhead, gaps, seconds, first, each, sizes)

    def _collect_tenants(self) -> Iterator[Metric]:
        requests = _count("tenant_requests", "Requests of a tenant.", "tenant")
        tokens = _count("tenant_tokens", "Tokens of a tenant.", "tenant")
        cost = _count("tenant_cost_usd", "US dollars that a tenant spent.", "tenant")
        for tenant, sums in self._by_tenant.items():
            requests.add_metric([tenant], sums["requests"])
            tokens.add_metric([tenant], sums["tokens"])
            cost.add_metric([tenant], sums["cost"] / NANO)
        yield from (requests, tokens, cost)


def _kinds(attempts: Iterable[Attempt], own: str) -> Iterator[tuple[Attempt, str]]:
    """While the release's own upstream is not asked, the first attempt is a fallback, too."""
    before = ""
    for attempt in attempts:
        name = attempt.target.name
        is_first = not before and name == own
        yield attempt, "first" if is_first else "retry" if before == name else "fallback"
        before = name


def _count(name: str, meaning: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"glassgate_{name}", meaning, labels=labels)


def _spread(name: str, meaning: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"glassgate_{name}", meaning, labels=labels)


def _otel(it: semconv.Instrument, *labels: str) -> HistogramMetricFamily:
    """Under OpenTelemetry's name, with its labels, and our route beside them."""
    own = (*OTEL, semconv.label(semconv.PROVIDER_NAME), "route")
    return HistogramMetricFamily(it.metric, it.meaning, labels=(*own, *labels))
