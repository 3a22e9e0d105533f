"""Statistics equal other people's programs, and published examples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evals import student
from gateway.evals.agreement import cohen, interval, krippendorff
from gateway.evals.statistics import (
    benjamini_hochberg,
    bootstrap,
    detectable,
    holm,
    mcnemar,
    mean_of,
    needed,
    power,
    wilson,
)

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "goldens" / "evals.json").read_text()
)
UNIT = st.floats(0, 1)
# Four observers of twelve units: the worked example of Krippendorff (2011).
OBSERVERS = ("12332141 2...", "12332241 25.3", ".3332342 251.", "12332441 251.")


def difference() -> Any:
    return np.array(GOLDEN["ours"]) - np.array(GOLDEN["theirs"])


def test_paired_t_is_scipys() -> None:
    assert mean_of(difference()) == pytest.approx(GOLDEN["paired"], abs=1e-12)


def test_clustered_errors_are_those_of_statsmodels() -> None:
    found = mean_of(difference(), GOLDEN["clusters"])
    assert found == pytest.approx(GOLDEN["clustered"], rel=1e-9)


def test_bootstrap_is_scipys() -> None:
    found = bootstrap(GOLDEN["ours"], GOLDEN["theirs"])
    assert found == pytest.approx(GOLDEN["bootstrap"], abs=0.005)


@pytest.mark.parametrize(("better", "worse", "p"), GOLDEN["mcnemar"])
def test_mcnemar_is_exact(better: int, worse: int, p: float) -> None:
    ours = [1.0] * better + [0.0] * worse + [1.0] * 3
    theirs = [0.0] * better + [1.0] * worse + [1.0] * 3
    assert mcnemar(ours, theirs) == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(("hits", "n", "low", "high"), GOLDEN["wilson"])
def test_wilson_is_that_of_statsmodels(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-12)


def test_many_p_values_are_adjusted_as_statsmodels_does() -> None:
    assert holm(GOLDEN["p"]) == pytest.approx(GOLDEN["holm"])
    assert benjamini_hochberg(GOLDEN["p"]) == pytest.approx(GOLDEN["benjamini_hochberg"])


@pytest.mark.parametrize(("effect", "n", "chance"), GOLDEN["power"])
def test_power_is_that_of_statsmodels(effect: float, n: int, chance: float) -> None:
    assert power(effect, 0.5, n) == pytest.approx(chance, abs=1e-9)


@pytest.mark.parametrize(("effect", "n"), GOLDEN["needed"])
def test_needed_cases_are_those_of_statsmodels(effect: float, n: float) -> None:
    assert needed(effect, 0.5) == int(np.ceil(n))
    assert detectable(0.5, needed(effect, 0.5)) <= effect


def test_kappa_is_that_of_statsmodels() -> None:
    assert cohen(*GOLDEN["ratings"]) == pytest.approx(GOLDEN["kappa"])


def test_krippendorffs_own_example() -> None:
    columns = zip(*(it.replace(" ", "") for it in OBSERVERS), strict=True)
    units = [[int(label) for label in column if label != "."] for column in columns]
    assert krippendorff(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff(units, interval) == pytest.approx(0.849, abs=5e-4)


@given(st.lists(UNIT, min_size=2, max_size=30))
def test_each_case_its_own_cluster_is_no_cluster(values: list[float]) -> None:
    assert mean_of(values, range(len(values))) == pytest.approx(mean_of(values), nan_ok=True)


@given(st.lists(UNIT, min_size=1, max_size=20))
def test_adjusted_values_keep_their_order_and_only_grow(p: list[float]) -> None:
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
        order = sorted(range(len(p)), key=lambda i: p[i])
        assert [adjusted[i] for i in order] == sorted(adjusted)


@given(st.integers(1, 60), st.floats(0.5, 0.999))
def test_a_quantile_is_where_its_tail_begins(df: int, confidence: float) -> None:
    t = student.quantile(confidence, df)
    assert student.two_sided(t, df) == pytest.approx(1 - confidence, rel=1e-6)


def test_one_case_tells_nothing() -> None:
    assert mean_of([0.7]).p == 1
    assert mean_of([0.7, 0.1], ["same", "same"]).p == 1
    assert wilson(0, 0) == (0, 1)


def test_judges_who_always_say_the_same_tell_nothing() -> None:
    assert cohen([1, 1], [1, 1]) == 0
    assert krippendorff([[1, 1], [1, 1]]) == 0
