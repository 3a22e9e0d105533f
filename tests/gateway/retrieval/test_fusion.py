"""Fusion against values worked out by hand, and what holds for any rankings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retrieval.fusion import min_max, reciprocal_rank, without_repeats

RANKINGS = st.lists(
    st.dictionaries(st.integers(0, 20), st.floats(-5, 5), max_size=12).map(
        lambda it: dict(sorted(it.items(), key=lambda pair: -pair[1]))
    ),
    max_size=3,
)


def test_reciprocal_rank_by_hand() -> None:
    fused = reciprocal_rank([{1: 9.0, 2: 3.0}, {2: 0.9, 3: 0.1}], k=60)
    assert list(fused) == [2, 1, 3]
    assert fused == pytest.approx({2: (61 / 62 + 1) / 2, 1: 0.5, 3: 61 / 62 / 2})


def test_min_max_by_hand() -> None:
    fused = min_max([{1: 9.0, 2: 3.0, 4: 1.0}, {2: 0.9, 3: 0.1}])
    assert list(fused) == [2, 1, 3, 4]
    assert fused == pytest.approx({2: (0.25 + 1) / 2, 1: 0.5, 3: 0, 4: 0})
    assert min_max([{7: 2.0}]) == {7: 1.0}


@given(RANKINGS, st.sampled_from([reciprocal_rank, min_max]))
def test_fusion_loses_nobody_and_orders_by_score(rankings, fuse) -> None:  # type: ignore[no-untyped-def]
    fused = fuse(rankings)
    assert set(fused) == {it for ranking in rankings for it in ranking}
    scores = list(fused.values())
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= it <= 1 + 1e-9 for it in scores)


def test_repeats_are_those_of_the_same_words() -> None:
    long = "the quick brown fox jumps over the lazy dog near the old river bank today"
    texts = [long, long.upper() + "!", long + " again and again we say", "", ""]
    assert without_repeats(texts, 9) == [0, 2, 3]
    assert without_repeats(texts, 2) == [0, 2]
