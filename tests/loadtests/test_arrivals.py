"""Arrivals have the rate, the burstiness and the order that a scenario asks for, each time anew."""

import statistics
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import arrivals, from_operational, read_trace
from loadtests.scenario import Traffic

TRACE = Path(__file__).parents[3] / (
    "shared/data/azure_llm_trace_2023/AzureLLMInferenceTrace_code.csv"
)


def times(
    seconds: float = 2000.0, scale: float = 1.0, seed: str = "1", **more: object
) -> list[float]:
    return [it.at for it in arrivals(Traffic(user="chat", **more), seconds, scale, seed)]


def test_constant() -> None:
    assert times(3.0, arrivals="constant", rate=2.0) == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert times(1.0, 4.0, arrivals="constant", rate=1.0) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("kind", "cv"), [("poisson", 1.0), ("gamma", 3.0)])
def test_rate_and_burstiness(kind: str, cv: float) -> None:
    at = times(arrivals=kind, rate=10.0, cv=3.0)
    gaps = [b - a for a, b in pairwise(at)]
    assert len(at) == pytest.approx(20_000, rel=0.06)
    assert statistics.pstdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.1)


def test_a_ramp_grows_as_it_says() -> None:
    """From 0 to 10 a second: a quarter of all comes in the first half."""
    at = times(rate=(0.0, 10.0))
    assert len(at) == pytest.approx(10_000, rel=0.05)
    assert sum(it < 1000 for it in at) / len(at) == pytest.approx(0.25, rel=0.05)


@given(
    first=st.floats(0.1, 100),
    last=st.floats(0.1, 100),
    seconds=st.floats(1, 100),
    at=st.floats(0, 1),
)
def test_the_clock_inverts_the_expected_count(
    first: float, last: float, seconds: float, at: float
) -> None:
    moment = at * seconds
    count = first * moment + (last - first) * moment**2 / (2 * seconds)
    found = from_operational(first, last, seconds)(count)
    assert found == pytest.approx(moment, rel=1e-3, abs=1e-3)


def test_seeds() -> None:
    assert times(50.0, seed="a") == times(50.0, seed="a") != times(50.0, seed="b")


@pytest.mark.parametrize(
    "stamps", [("0.5", "2"), ("2023-11-16 18:17:03.5000000", "2023-11-16 18:17:05")]
)
def test_a_trace_of_dates_or_seconds(tmp_path: Path, stamps: tuple[str, str]) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"when,in,out\n{stamps[0]},10,3\n{stamps[1]},20,4\n")
    assert read_trace(path) == [(0.0, 10, 3), (1.5, 20, 4)]
    traffic = Traffic(user="replay", arrivals="trace", trace=str(path), speed=0.5)
    fast = arrivals(traffic, 10.0, 3.0, "1")
    assert [(it.at, it.number, it.prompt, it.output) for it in fast] == [
        (0, 0, 10, 3),
        (1, 1, 20, 4),
    ]
    assert len(arrivals(traffic, 1.0, 1.0, "1")) == 1


@pytest.mark.skipif(not TRACE.exists(), reason=f"the Azure trace is not here: {TRACE.name}")
def test_the_azure_trace() -> None:
    rows = read_trace(TRACE)
    assert len(rows) == 8819
    assert rows[1] == (pytest.approx(0.052), 3180, 8)
    assert [at for at, _, _ in rows] == sorted(at for at, _, _ in rows)
