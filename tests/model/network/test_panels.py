"""Weights in panels against their dequantised selves, and the compiled products against both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.compiled_llama import record, round_up
from model.network.microkernel import BLOCKS, COLUMNS, KEYS, VALUES, compile_product
from model.network.panels import BLOCK, LANES, PackedLinear, aligned, pack
from tests.model.network.quantised import TYPES, call_product, tensor

SHAPES = [(16, 32), (1, 64), (17, 96), (50, 32), (33, 352)]
ODD_SHAPES = [*SHAPES, (5, 7), (40, 33)]


def shapes_of(type_name: str) -> list[tuple[int, int]]:
    return SHAPES if type_name.startswith("Q") else ODD_SHAPES


CASES = [(name, shape) for name in TYPES for shape in shapes_of(name)]


@pytest.mark.parametrize(("type_name", "shape"), CASES)
def test_packing_keeps_every_value(type_name: str, shape: tuple[int, int]) -> None:
    source = tensor(np.random.default_rng(0).standard_normal(shape, np.float32), type_name)
    packed = pack(source)
    # (code - 8) · scale is computed as code · scale - 8 · scale
    tolerance = 1e-6 if type_name == "Q4_0" else 0
    np.testing.assert_allclose(packed.dense(), source.dequantize(), atol=tolerance, rtol=0)
    ids = np.array([shape[0] - 1, 0])
    np.testing.assert_array_equal(packed.rows(ids), packed.dense()[ids])


def multiply(weight: PackedLinear, x: np.ndarray, columns: int) -> np.ndarray:
    """x @ W.T by the compiled product, one panel after another."""
    width = round_up(weight.in_features, BLOCK)
    rows = np.zeros((len(x), width + width // BLOCK), np.float32)
    rows[:, : weight.in_features] = x
    rows[:, width:] = rows[:, :width].reshape(len(x), -1, BLOCK).sum(-1)
    y = np.zeros((len(x), round_up(weight.out_features, LANES)), np.float32)
    kind, panels, blocks, words, constants, panel_bytes, constant_bytes = record(weight)
    for panel in range(panels):
        for t in range(0, len(x), columns):
            call_product(
                compile_product(kind, columns),
                (words + panel * panel_bytes, constants + panel * constant_bytes, blocks),
                rows[t:],
                y[t:, panel * LANES :],
            )
    return y[:, : weight.out_features]


@pytest.mark.parametrize(("type_name", "shape"), CASES)
def test_products_agree_with_dense_weights(type_name: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    source = tensor(rng.standard_normal(shape, np.float32), type_name)
    weight = pack(source)
    x = rng.standard_normal((24, shape[1]), np.float32)
    expected = x.astype(np.float64) @ source.dequantize().T.astype(np.float64)
    by_columns = [multiply(weight, x, columns) for columns in COLUMNS]
    tolerance = 1e-5 * np.sqrt(shape[1])
    np.testing.assert_allclose(by_columns[0], expected, atol=tolerance)
    np.testing.assert_allclose(weight(x.T).T, expected, atol=tolerance)
    for other in by_columns[1:]:
        np.testing.assert_array_equal(other, by_columns[0])  # whatever a column's company


@given(st.sampled_from([KEYS, VALUES]), st.sampled_from(COLUMNS), st.integers(1, 5))
def test_cache_products_agree_with_numpy(kind: int, columns: int, num_blocks: int) -> None:
    rng = np.random.default_rng(num_blocks)
    weights = aligned((num_blocks, 16, LANES), np.float32)
    weights[:] = rng.standard_normal(weights.shape, np.float32)
    x = rng.standard_normal((columns, num_blocks * 16), np.float32)
    y = rng.standard_normal((columns, LANES), np.float32)
    expected = y + x.astype(np.float64) @ weights.reshape(-1, LANES).astype(np.float64)
    order = rng.permutation(num_blocks)
    if BLOCKS[kind].is_scattered:
        places = weights.ctypes.data + order * weights[0].nbytes - 8
        weight = (places.ctypes.data, 8, num_blocks)
        x = x.reshape(columns, num_blocks, 16)[:, order].reshape(columns, -1)
    else:
        weight = (weights.ctypes.data, 0, num_blocks)
    call_product(compile_product(kind, columns), weight, x, y)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
