"""The nearest question of a partition, against all of them at once; bounded, forgetting."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer_vectors import Vectors

NUMBERS = np.random.default_rng(7)


def unit(n: int, width: int = 16) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    rows = NUMBERS.standard_normal((n, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(1, 40), st.integers(1, 12))
def test_nearest_is_the_nearest_of_the_last_so_many(n: int, bound: int) -> None:
    vectors, rows, query = Vectors(bound), unit(n), unit(1)[0]
    for i, row in enumerate(rows):
        vectors.add("p", str(i), f"text {i}", row)
    kept = range(max(0, n - bound), n)
    best = max(kept, key=lambda i: float(rows[i] @ query))
    found = vectors.nearest("p", query)
    assert found is not None
    assert (found.key, found.text) == (str(best), f"text {best}")
    assert np.isclose(found.similarity, rows[best] @ query, atol=1e-5)
    assert len(vectors) == len(kept)


def test_partitions_are_walls() -> None:
    vectors, (row,) = Vectors(8), unit(1)
    vectors.add("a", "k", "", row)
    assert vectors.nearest("b", row) is None


def test_the_partition_not_used_for_longest_goes() -> None:
    vectors, rows = Vectors(4), unit(5)
    for name, row in zip("aabbc", rows, strict=True):
        vectors.add(name, f"{name}{len(vectors)}", "", row)
        vectors.nearest("a", row)
    assert vectors.nearest("b", rows[2]) is None
    assert vectors.nearest("a", rows[0]) is not None
    assert len(vectors) == 3


def test_a_key_has_one_place_and_can_be_forgotten() -> None:
    vectors, (old, new) = Vectors(4), unit(2)
    vectors.add("p", "k", "once", old)
    vectors.add("p", "k", "now", new)
    assert len(vectors) == 1
    found = vectors.nearest("p", new)
    assert found is not None
    assert found.similarity > 0.999
    vectors.forget("p", "k")
    assert vectors.nearest("p", new) == ("k", "now", 0.0)
    vectors.add("p", "k", "now", new)
    assert vectors.nearest("p", new) == found
