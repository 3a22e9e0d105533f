"""Figures against values worked out by hand, and verdicts on them."""

import pytest

from loadtests.client import Record
from loadtests.drive import Run, is_rising
from loadtests.figures import check, figures, percentile, spread, summarise
from loadtests.scenario import Good, Hold, Phase, Scenario

GOOD = Good(ttft=1.0, tpot=0.5, e2e=10.0)


def record(ttft: float = 0.5, e2e: float = 2.5, completion: int = 5, **more: object) -> Record:
    """Due at 100."""
    values = {"tenant": "", "phase": "all", "error": "", "gaps": [0.5, 1.5], **more}
    return Record(
        user="chat",
        request_id="",
        due=100.0,
        sent=100.0,
        first=100 + ttft,
        end=100 + e2e,
        completion=completion,
        prompt=10,
        **values,
    )


@pytest.mark.parametrize(
    ("count", "share", "value"),
    [(1, 50, 1), (1, 99, 1), (4, 50, 2), (5, 50, 3), (100, 99, 99), (101, 99, 100), (20, 95, 19)],
)
def test_nearest_rank(count: int, share: int, value: int) -> None:
    assert percentile(range(1, count + 1), share) == value


def test_a_spread_of_nothing() -> None:
    assert spread([None]) == {"count": 0}
    assert spread([3.0, None, 1.0])["mean"] == 2.0


def test_by_hand() -> None:
    slow = record(ttft=1.5, e2e=3.5)
    it = figures([record(), record(completion=3), slow, record(error="reset")], 2.0, GOOD)
    assert (it["requests"], it["ok"], it["errors"]) == (4, 3, {"reset": 1})
    assert it["error_share"] == 0.25
    assert it["throughput_rps"] == 1.5
    assert it["goodput_rps"] == 0.5  # one has a TPOT of (2.5 - 0.5) / 2 = 1, one is late
    assert it["tokens_per_s"] == (5 + 3 + 5) / 2
    assert [it["ttft"]["p50"], it["ttft"]["p99"]] == [0.5, 1.5]
    assert it["tpot"]["p50"] == 0.5
    assert it["itl"] == {"count": 6, "mean": 1.0, "p50": 0.5, "p90": 1.5, "p95": 1.5, "p99": 1.5}
    assert it["e2e"]["p99"] == 3.5


PHASES = {
    "alone": {"e2e": {"p99": 1.0}, "tenants": {"calm": {"e2e": {"p99": 0.5}}}, "errors": {}},
    "flooded": {
        "e2e": {"p99": 3.0},
        "tenants": {"calm": {"e2e": {"p99": 0.6}}},
        "errors": {"x": 2},
        "error_share": 0.5,
    },
}


@pytest.mark.parametrize(
    ("hold", "is_held"),
    [
        (Hold(what="e2e.p99", phase="alone", at_most=1.0), True),
        (Hold(what="e2e.p99", phase="alone", at_most=0.9), False),
        (
            Hold(what="e2e.p99", phase="flooded", tenant="calm", at_most_times=1.2, than="alone"),
            True,
        ),
        (Hold(what="e2e.p99", phase="flooded", at_most_times=1.2, than="alone"), False),
        (Hold(what="errors.x", phase="flooded", at_least=2), True),
        (Hold(what="errors.y", phase="flooded", at_most=0), True),
        (Hold(what="errors.y", phase="flooded", at_least=1), False),
        (Hold(what="ttft.p99", phase="alone", at_most=9), False),  # not measured, not held
        (Hold(what="e2e.p98", phase="alone", at_most=9), False),
        (Hold(what="e2e.p99", phase="alone", tenant="nobody", at_most=9), False),
    ],
)
def test_bounds(hold: Hold, is_held: bool) -> None:
    assert check(hold, PHASES)["is_held"] == is_held


def test_a_share_of_errors_says_which() -> None:
    bad = Hold(what="error_share", phase="flooded", at_most=0.0)
    assert check(bad, PHASES)["errors"] == {"x": 2}
    assert not check(Hold(what="e2e.p99", phase="flooded"), PHASES)["errors"]


def summary(**changes: object) -> dict[str, object]:
    phase = Phase(name="all", seconds=4.0, traffic=())
    hold = Hold(what="error_share", phase="all", at_most=0.0)
    scenario = Scenario("s", "", {"emulated": 1.0}, (phase,), holds=(hold,))
    samples = [
        {"t": t, "open": 1.0, "queue": t, "cost": 2 * t, "rss_mb_gateway": 100 + t / 60}
        for t in map(float, range(5))
    ]
    run = Run(1.0, 0.0, [record()], samples, {"all": 0.0}, {"all": 0.5}, "")
    for name, value in changes.items():
        setattr(run, name, value)
    return summarise(scenario, run)


def test_the_server_in_the_summary() -> None:
    found = summary()
    phase = found["phases"]["all"]
    assert (phase["queue_max"], phase["cost_usd"]) == (4.0, 8.0)
    assert phase["rss_mb_gateway_per_min"] == pytest.approx(1.0)
    assert (found["is_held"], found["void"]) == (True, "")


def test_a_generator_that_was_the_bottleneck_says_so() -> None:
    late = record()
    late.sent = 100.2
    assert "late by 0.200 s" in summary(records=[late])["void"]
    assert "used 95% of its core" in summary(cpu={"all": 0.95})["void"]


def test_a_run_that_was_given_up_holds_nothing() -> None:
    assert not summary(saturated="all")["is_held"]


@pytest.mark.parametrize(
    ("opened", "is_so"),
    [
        ([5.0] * 40, False),
        ([10.0 * n for n in range(40)], True),
        ([float(n) for n in range(8)], False),  # too early to tell
        ([40.0, 90.0, 20.0, 10.0] * 10, False),
    ],
)
def test_a_backlog_that_grows_without_end(opened: list[float], is_so: bool) -> None:
    assert is_rising(opened) == is_so
