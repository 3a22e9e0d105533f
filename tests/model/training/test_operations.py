"""Every derivative against central differences in float64, every value against the network's."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from model.network import functional
from model.training import operations as op
from model.training.operations import Array

RNG = np.random.default_rng(8)
T, D, H, K, DH, R, V = 7, 6, 4, 2, 6, 3, 11
TARGETS = RNG.integers(0, V, T)
COS, SIN = (table[:T].astype(float) for table in functional.rope_table(T, DH, 100.0))
STARTS = [0, 3, 4, T]


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


HEAD = normal(V, D)

CASES: dict[str, tuple[Callable[..., tuple[Array, Callable[[Array], object]]], list[Array]]] = {
    "linear": (op.linear, [normal(T, D), normal(V, D)]),
    "frozen linear": (lambda x: op.frozen_linear(x, HEAD), [normal(T, D)]),
    "low rank": (
        lambda *x: op.low_rank(*x, scale=1.7), [normal(T, D), normal(R, D), normal(V, R)],
    ),
    "rms norm": (lambda *x: op.rms_norm(*x, eps=1e-5), [normal(T, D), normal(D)]),
    "rope": (lambda x: op.rope(x, COS, SIN), [normal(T, H, DH)]),
    "swiglu": (op.swiglu, [normal(T, D), normal(T, D)]),
    "attention": (
        lambda *x: op.attention(*x, STARTS), [normal(T, H, DH), normal(T, K, DH), normal(T, K, DH)],
    ),
    "log likelihood": (lambda *x: op.log_likelihood(*x, TARGETS), [normal(T, D), normal(V, D)]),
    "frozen log likelihood": (
        lambda x: op.frozen_log_likelihood(x, HEAD, TARGETS), [normal(T, D)],
    ),
}  # fmt: skip


def central_difference(f: Callable[[], float], x: Array, h: float = 1e-5) -> Array:
    slope = np.empty_like(x)
    for at in np.ndindex(x.shape):
        kept = x[at]
        x[at] = kept + h
        above = f()
        x[at] = kept - h
        slope[at] = (above - f()) / (2 * h)
        x[at] = kept
    return slope


@pytest.mark.parametrize("name", CASES)
def test_the_derivative_is_the_slope(name: str) -> None:
    operation, inputs = CASES[name]
    value, backward = operation(*inputs)
    dy = normal(*value.shape)
    found = backward(dy)
    gradients = found if isinstance(found, tuple) else (found,)
    assert len(gradients) == len(inputs)
    for gradient, x in zip(gradients, inputs, strict=True):
        slope = central_difference(lambda: float(np.sum(operation(*inputs)[0] * dy)), x)
        np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-6 * np.abs(slope).max())


def test_the_values_are_those_of_the_network() -> None:
    x, weight, gate = normal(T, D), normal(D), normal(T, D)
    q, k, v = CASES["attention"][1]
    alone = [functional.attention(q[a:b], k[a:b], v[a:b], np.arange(b - a))
             for a, b in pairwise(STARTS)]  # fmt: skip
    pairs = {
        "rms norm": (op.rms_norm(x, weight, 1e-5)[0], functional.rms_norm(x, weight, 1e-5)),
        "swiglu": (op.swiglu(gate, x)[0], functional.swiglu(gate, x)),
        "attention": (op.attention(q, k, v, STARTS)[0], np.concatenate(alone)),
    }
    for ours, theirs in pairs.values():
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_frozen_head_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "HEAD_ROWS", 3)
    x, head = CASES["log likelihood"][1]
    dy = normal(T)
    values, back = op.log_likelihood(x, head, TARGETS)
    frozen, frozen_back = op.frozen_log_likelihood(x, head, TARGETS)
    np.testing.assert_allclose(frozen, values)
    np.testing.assert_allclose(op.score(x, head, TARGETS), values)
    np.testing.assert_allclose(frozen_back(dy)[0], back(dy)[0])
