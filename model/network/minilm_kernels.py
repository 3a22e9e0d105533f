"""The row-wise steps of the encoder: one pass over memory each, compiled by numba.

Each works in place and stands beside its form in numpy, which takes over where there is no numba
and which a test holds it to. They let go of the interpreter: batches may run side by side.
Alphabet: T tokens, D features.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from model.network.linear import Floats

try:
    from numba import njit

    from model.network import compiler
except ModuleNotFoundError:  # no wheel of numba for this Python
    njit, compiler = None, None  # type: ignore[assignment]

F = TypeVar("F", bound=Callable[..., Any])
Norm = tuple[Floats, Floats, float]  # gain [D], shift [D], epsilon
f4 = np.float32

# erf(u) ≈ u · P(u²) / Q(u²) for |u| ≤ 4, good to float32: the coefficients of Eigen and XLA
ERF_P = tuple(map(f4, (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)))  # fmt: skip
ERF_Q = tuple(map(f4, (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
)))  # fmt: skip
EXP_P = tuple(map(f4, (  # e^r for |r| ≤ ln 2 / 2: the coefficients of Cephes' expf
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
)))  # fmt: skip


def num_threads() -> int:
    """How many may compute at a time."""
    return compiler.num_threads() if compiler else 1


def compiled(in_numpy: Callable[..., Any]) -> Callable[[F], F]:
    """Compile the loop below; without numba, put its form in numpy in its place."""

    def choose(loop: F) -> F:
        if njit is None:
            return cast(F, in_numpy)
        # the numpy error model: a test for division by zero would keep a loop from vectorising
        return cast(F, njit(loop, fastmath=True, error_model="numpy", cache=True, nogil=True))

    return choose


def softmax_numpy(x: Floats, scale: float) -> None:
    """x [T, D] ← softmax(scale · x) along rows."""
    x -= x.max(axis=1, keepdims=True)
    x *= f4(scale)
    np.exp(x, out=x)
    x /= x.sum(axis=1, keepdims=True)


def bias_gelu_numpy(x: Floats, bias: Floats) -> None:
    """x [T, D] ← gelu(x + bias) in its exact form, v/2 · (1 + erf(v/√2)) (arXiv:1606.08415)."""
    x += bias
    u = np.clip(x * f4(np.sqrt(0.5)), -4, 4)
    x *= f4(0.5) * (1 + u * np.polyval(ERF_P, u * u) / np.polyval(ERF_Q, u * u))


def add_norm_numpy(x: Floats, y: Floats, bias: Floats, norm: Norm) -> None:
    """x [T, D] ← LayerNorm(x + y + bias) (arXiv:1607.06450)."""
    gain, shift, eps = norm
    x += y + bias
    x -= x.mean(axis=1, keepdims=True)
    x *= gain / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + f4(eps))
    x += shift


# Below, comparisons are conditional expressions and int32 is named: other spellings of the same
# do not vectorise, and are ten times slower.


@compiled(np.exp)
def _exp(x: np.float32) -> np.float32:
    """e^x for x ≤ 0, as 2^k · e^r."""
    x = f4(-87) if x < f4(-87) else x
    k = np.int32(x * f4(1.44269504) - f4(0.5))
    r = x - f4(k) * f4(0.693359375) + f4(k) * f4(2.12194440e-4)
    p = ((EXP_P[0] * r + EXP_P[1]) * r + EXP_P[2]) * r + EXP_P[3]
    p = (p * r + EXP_P[4]) * r + EXP_P[5]
    power: np.float32 = np.int32((k + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + f4(1)) * power


@compiled(softmax_numpy)
def softmax(x: Floats, scale: float) -> None:
    """x [T, D] ← softmax(scale · x) along rows."""
    for i in range(x.shape[0]):
        top = x[i, 0]
        for j in range(x.shape[1]):
            top = x[i, j] if x[i, j] > top else top
        total = f4(0)
        for j in range(x.shape[1]):
            x[i, j] = _exp((x[i, j] - top) * f4(scale))
            total += x[i, j]
        share = f4(1) / total
        for j in range(x.shape[1]):
            x[i, j] *= share


@compiled(bias_gelu_numpy)
def bias_gelu(x: Floats, bias: Floats) -> None:
    """x [T, D] ← gelu(x + bias) in its exact form."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            v = x[i, j] + bias[j]
            u = v * f4(0.70710678)
            u = f4(4) if u > f4(4) else u
            u = f4(-4) if u < f4(-4) else u
            z = u * u
            p = ((ERF_P[0] * z + ERF_P[1]) * z + ERF_P[2]) * z + ERF_P[3]
            p = ((p * z + ERF_P[4]) * z + ERF_P[5]) * z + ERF_P[6]
            q = (ERF_Q[0] * z + ERF_Q[1]) * z + ERF_Q[2]
            q = (q * z + ERF_Q[3]) * z + ERF_Q[4]
            x[i, j] = f4(0.5) * v * (f4(1) + u * p / q)


@compiled(add_norm_numpy)
def add_norm(x: Floats, y: Floats, bias: Floats, norm: Norm) -> None:
    """x [T, D] ← LayerNorm(x + y + bias)."""
    gain, shift, eps = norm
    D = x.shape[1]
    for i in range(x.shape[0]):
        total, square = f4(0), f4(0)
        for j in range(D):
            x[i, j] += y[i, j] + bias[j]
            total += x[i, j]
        mean = total / f4(D)
        for j in range(D):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        scale = f4(1) / np.sqrt(square / f4(D) + f4(eps))
        for j in range(D):
            x[i, j] = (x[i, j] - mean) * scale * gain[j] + shift[j]
