"""Weights in panels against their dequantised selves, and the compiled products against both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.compiled_llama import record, round_up
from model.network.microkernel import COLUMNS, MIXED_COLUMNS, compile_mixture, compile_product
from model.network.panels import BLOCK, LANES, PackedLinear, pack
from tests.model.network.quantised import TYPES, call, tensor

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
            call(
                compile_product(kind, columns),
                words + panel * panel_bytes, constants + panel * constant_bytes, blocks,
                rows[t:].ctypes.data, rows.strides[0],
                y[t:, panel * LANES :].ctypes.data, y.strides[0],
            )  # fmt: skip
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


@given(st.sampled_from(MIXED_COLUMNS), st.sampled_from([16, 32, 80, 128]), st.integers(1, 5))
def test_mixtures_of_scattered_values_agree_with_numpy(
    columns: int, width: int, num_panels: int
) -> None:
    rng = np.random.default_rng(num_panels)
    values = rng.standard_normal((9, LANES, width), np.float32)
    panels = rng.permutation(9)[:num_panels]
    x = rng.standard_normal((columns, num_panels * LANES), np.float32)
    y = rng.standard_normal((columns, width), np.float32)
    expected = y + x.astype(np.float64) @ values[panels].reshape(-1, width)
    places = values.ctypes.data + panels * values[0].nbytes
    call(
        compile_mixture(columns, width),
        places.ctypes.data, num_panels, x.ctypes.data, x.strides[0], y.ctypes.data, y.strides[0],
    )  # fmt: skip
    np.testing.assert_allclose(y, expected, atol=1e-4)
