"""The measures against values that were worked out by hand."""

import math

import pytest

from tests.bench.ranking import (
    area_under,
    exact_interval,
    ndcg,
    paired_interval,
    recall,
    reciprocal_rank,
)


def test_ndcg_by_hand() -> None:
    assert ndcg("abc", "a") == 1.0
    assert ndcg("bac", "a") == pytest.approx(1 / math.log2(3))
    # Found at 1 and 3 of three that are relevant: (1 + 1/2) / (1 + 1/log2(3) + 1/2).
    assert ndcg("axb", "abc") == pytest.approx(1.5 / (1.5 + 1 / math.log2(3)))
    assert ndcg("xyz", "a") == 0.0
    assert ndcg("xa", "a", k=1) == 0.0
    assert ndcg("abcd", "abcd", k=2) == 1.0


def test_recall_and_reciprocal_rank_by_hand() -> None:
    assert recall("abc", "ad") == 0.5
    assert recall("xxa", "a", k=2) == 0.0
    assert reciprocal_rank("xya", "a") == pytest.approx(1 / 3)
    assert reciprocal_rank("xyz", "a") == 0.0


def test_an_interval_holds_what_it_should() -> None:
    assert paired_interval([1.0] * 9, [0.5] * 9) == (0.5, 0.5)
    low, high = paired_interval([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert low < 0 < high
    assert high == pytest.approx(0.2, abs=0.05)  # ± 1.96 / sqrt(100)


def test_area_by_hand() -> None:
    assert area_under([2, 3], [0, 1]) == 1.0
    assert area_under([1], [1]) == 0.5
    assert area_under([0, 2], [1]) == 0.5


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [  # as R's binom.test has them
        (0, 450, 0.0, 0.008164),
        (1, 10, 0.002529, 0.445016),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.691503, 1.0),
    ],
)
def test_exact_interval(count: int, of: int, low: float, high: float) -> None:
    assert exact_interval(count, of) == pytest.approx((low, high), abs=2e-6)
