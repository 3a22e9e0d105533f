"""From records to figures, and from figures to a verdict.

    TTFT = first content - due            TPOT = (E2E - TTFT) / (output - 1)
    E2E  = last byte - due                ITL  = every gap between two pieces of content
    goodput = requests a second without an error that keep the scenario's `good`

A percentile is the smallest value that at least that share of all values does not exceed (nearest
rank). Latencies are of requests without an error; those with one are counted beside them.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from loadtests.client import Record
from loadtests.drive import Run
from loadtests.scenario import Good, Hold, Scenario

SHARES = (50, 90, 95, 99)
MAX_LAG_S = 0.05  # p99 of what the generator may be late …
MAX_CPU = 0.85  # … and the share of its core that it may use
Figures = dict[str, Any]


def percentile(values: Sequence[float], share: int) -> float:
    """Nearest rank; `values` in order, not empty; `share` in percent."""
    return values[max(1, math.ceil(share * len(values) / 100)) - 1]


def spread(values: Iterable[float | None]) -> Figures:
    """Count, mean and percentiles of what is there; only the count where nothing is."""
    ordered = sorted(it for it in values if it is not None)
    if not ordered:
        return {"count": 0}
    shares = {f"p{share}": percentile(ordered, share) for share in SHARES}
    return {"count": len(ordered), "mean": statistics.fmean(ordered), **shares}


def figures(records: Sequence[Record], seconds: float, good: Good) -> Figures:
    """Of some requests that were due within `seconds`."""
    fine = [it for it in records if not it.error]
    prompt, completion = sum(it.prompt for it in fine), sum(it.completion for it in fine)
    releases = Counter(it.release for it in fine)
    return {
        "requests": len(records),
        "ok": len(fine),
        "error_share": 1 - len(fine) / len(records) if records else 0.0,
        "errors": dict(Counter(it.error for it in records if it.error)),
        "throughput_rps": len(fine) / seconds,
        "goodput_rps": sum(is_good(it, good) for it in fine) / seconds,
        "tokens_per_s": completion / seconds,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cached_share": sum(it.cached for it in fine) / max(1, prompt),
        "ttft": spread(it.ttft for it in fine),
        "tpot": spread(it.tpot for it in fine),
        "itl": spread(gap for it in fine for gap in it.gaps),
        "e2e": spread(it.e2e for it in fine),
        "release_share": {name: count / len(fine) for name, count in releases.items()},
    }


def is_good(record: Record, good: Good) -> bool:
    waits = ((record.ttft, good.ttft), (record.tpot, good.tpot), (record.e2e, good.e2e))
    return not record.error and all(wait is None or wait <= bound for wait, bound in waits)


def summarise(scenario: Scenario, run: Run) -> Figures:
    """The summary: figures by phase and tenant, the generator's own, and what holds."""
    phases: Figures = {}
    for phase in scenario.phases:
        them = [it for it in run.records if it.phase == phase.name]
        phases[phase.name] = figures(them, phase.seconds, scenario.good)
        phases[phase.name] |= of_server(run, run.begins.get(phase.name, math.inf), phase.seconds)
        phases[phase.name]["tenants"] = {
            tenant: figures(
                [it for it in them if it.tenant == tenant], phase.seconds, scenario.good
            )
            for tenant in sorted({it.tenant for it in them})
        }
    lag, cpu = spread(it.sent - it.due for it in run.records), max(run.cpu.values(), default=0.0)
    faults = [f"it was late by {lag['p99']:.3f} s (p99)"] if lag.get("p99", 0) > MAX_LAG_S else []
    faults += [f"it used {cpu:.0%} of its core"] if cpu > MAX_CPU else []
    holds = [check(hold, phases) for hold in scenario.holds]
    return {
        "scenario": scenario.name,
        "scale": run.scale,
        "phases": phases,
        "generator": {"lag": lag, "cpu": run.cpu},
        "void": " and ".join(faults),
        "saturated": run.saturated,
        "holds": holds,
        "is_held": not run.saturated and all(it["is_held"] for it in holds),
    }


def of_server(run: Run, begin: float, seconds: float) -> Figures:
    """What the samples of a phase say: the longest queue, the cost, how memory grew."""
    samples = [it for it in run.samples if begin <= it["t"] <= begin + seconds]
    found: Figures = {"queue_max": max((it.get("queue", 0.0) for it in samples), default=0.0)}
    if costs := [it["cost"] for it in samples if "cost" in it]:
        found["cost_usd"] = costs[-1] - costs[0]
    late = samples[len(samples) // 5 :]  # what a process takes at its begin is no leak
    for name in {it for sample in late for it in sample if it.startswith("rss_mb_")}:
        points = [(it["t"] / 60, it[name]) for it in late if name in it]
        if len(points) > 1:
            slope = statistics.linear_regression(*zip(*points, strict=True)).slope
            found[f"{name}_per_min"] = slope
    return found


def check(hold: Hold, phases: Figures) -> Figures:
    """The bounds, the value, and whether it is within; what is not there is not within."""
    seen = of_tenant(phases[hold.phase], hold)
    value, most = find(seen, hold), hold.at_most
    if hold.than:
        than = find(of_tenant(phases[hold.than], hold), hold)
        most = -math.inf if than is None else min(most, hold.at_most_times * than)
    return {
        "what": f"{hold.what} {hold.tenant} in {hold.phase}".replace("  ", " "),
        "value": value,
        "bound": f"{hold.at_least:.4g} to {most:.4g}",
        "is_held": value is not None and hold.at_least <= value <= most,
        "errors": seen.get("errors", {}) if hold.what == "error_share" else {},
    }


def of_tenant(phase: Figures, hold: Hold) -> Figures:
    return phase["tenants"].get(hold.tenant, {}) if hold.tenant else phase


def find(seen: Figures, hold: Hold) -> float | None:
    """The figure by its dotted name; an error or a release that was not seen counts 0."""
    first, _, rest = hold.what.partition(".")
    found = seen.get(first)
    if rest and found is not None:
        found = found.get(rest, 0.0 if first in ("errors", "release_share") else None)
    return None if found is None else float(found)
