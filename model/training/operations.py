"""Each operation of a llama, with its derivative under it.

An operation returns its value and `backward`: from the loss's gradient by that value to its
gradients by the inputs, in their order, but for frozen ones. Works in any float type: float32
trains, float64 proves. Leaves out which weights are trained: `llama` knows.
Alphabet: T tokens of all sequences, L of one, D width, H heads, K kv heads, Dh head width,
r rank, V vocabulary, R rows whose next token counts.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.network import functional

Array = NDArray[Any]
Gradients = Callable[[Array], tuple[Array, ...]]

HEAD_ROWS = 128  # rows whose logits exist at the same time: 25 MB for a vocabulary of 49,152


def linear(x: Array, weight: Array) -> tuple[Array, Gradients]:
    """x [T, in] · weightᵀ, weight [out, in]."""

    def backward(dy: Array) -> tuple[Array, ...]:
        return dy @ weight, dy.T @ x

    return x @ weight.T, backward


def frozen_linear(x: Array, weight: Array) -> tuple[Array, Gradients]:
    """`linear` by a weight that is not trained: half of its backward falls away."""
    return x @ weight.T, lambda dy: (dy @ weight,)


def low_rank(x: Array, down: Array, up: Array, scale: float) -> tuple[Array, Gradients]:
    """scale · (x · downᵀ) · upᵀ, down [r, in], up [out, r] (LoRA, arXiv:2106.09685)."""
    low = x @ down.T
    low *= scale

    def backward(dy: Array) -> tuple[Array, ...]:
        dlow = dy @ up
        dlow *= scale
        return dlow @ down, dlow.T @ x, dy.T @ low

    return low @ up.T, backward


def rms_norm(x: Array, weight: Array, eps: float) -> tuple[Array, Gradients]:
    """x / √(mean(x²) + eps) · weight, row by row."""
    inverse = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    normed = x * inverse

    def backward(dy: Array) -> tuple[Array, ...]:
        dnormed = dy * weight
        radial = np.mean(dnormed * normed, axis=-1, keepdims=True)
        return inverse * (dnormed - normed * radial), np.sum(dy * normed, axis=0)

    return normed * weight, backward


def rope(x: Array, cos: Array, sin: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Rotate each head of x [T, H, Dh] by its position; back is the same turn the other way."""
    return functional.rope(x, cos, sin), lambda dy: functional.rope(dy, cos, -sin)


def swiglu(gate: Array, up: Array) -> tuple[Array, Gradients]:
    """silu(gate) · up."""
    # exp overflows to inf for very negative gates and the quotient is then the right limit, 0
    sigmoid = np.negative(gate)
    with np.errstate(over="ignore"):
        np.exp(sigmoid, out=sigmoid)
    sigmoid += 1
    np.reciprocal(sigmoid, out=sigmoid)
    silu = gate * sigmoid

    def backward(dy: Array) -> tuple[Array, ...]:
        slope = 1 - sigmoid
        slope *= silu
        slope += sigmoid
        slope *= up
        slope *= dy
        return slope, dy * silu

    return silu * up, backward


def attention(q: Array, k: Array, v: Array, starts: list[int]) -> tuple[Array, Gradients]:
    """Causal attention inside each sequence: q [T, H, Dh], k and v [T, K, Dh] → [T, H, Dh].

    Sequence b is the tokens starts[b] … starts[b + 1]; they lie end to end, without padding.
    """
    spans = [slice(first, last) for first, last in pairwise(starts)]
    mixed = np.empty_like(q)
    backs = []
    for span in spans:
        mixed[span], back = _attend(q[span], k[span], v[span])
        backs.append(back)

    def backward(dy: Array) -> tuple[Array, ...]:
        dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
        for span, back in zip(spans, backs, strict=True):
            dq[span], dk[span], dv[span] = back(dy[span])
        return dq, dk, dv

    return mixed, backward


def _attend(q: Array, k: Array, v: Array) -> tuple[Array, Gradients]:
    """One sequence. The heads that share a key are one tall matrix, so gradients add up by it."""
    L, H, Dh = q.shape
    K = k.shape[1]
    scale = Dh**-0.5

    def by_group(x: Array) -> Array:  # [L, H, Dh] → [K, H/K · L, Dh]
        return x.reshape(L, K, H // K, Dh).transpose(1, 2, 0, 3).reshape(K, -1, Dh)

    def by_token(x: Array) -> Array:  # and back
        return x.reshape(K, H // K, L, Dh).transpose(2, 0, 1, 3).reshape(L, H, Dh)

    queries, keys, values = by_group(q) * scale, k.swapaxes(0, 1), v.swapaxes(0, 1)
    shares = queries @ keys.swapaxes(1, 2)
    by_query = shares.reshape(K, H // K, L, L)
    by_query += np.triu(np.full((L, L), -np.inf, q.dtype), 1)  # nobody sees the future
    shares -= shares.max(axis=-1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=-1, keepdims=True)
    mixed = shares @ values

    def backward(dy: Array) -> tuple[Array, ...]:
        dmixed = by_group(dy)
        dscores = dmixed @ values.swapaxes(1, 2)
        dscores -= np.sum(dmixed * mixed, axis=-1, keepdims=True)  # equals Σ dscores · shares
        dscores *= shares
        dkeys, dvalues = dscores.swapaxes(1, 2) @ queries, shares.swapaxes(1, 2) @ dmixed
        return by_token(dscores @ keys * scale), dkeys.swapaxes(0, 1), dvalues.swapaxes(0, 1)

    return by_token(mixed), backward


def log_likelihood(x: Array, head: Array, targets: Array) -> tuple[Array, Gradients]:
    """log p(targets) [R] under softmax(x · headᵀ), x [R, D], head [V, D]."""
    rows = np.arange(len(x))
    shares = functional.softmax(x @ head.T)

    def backward(dy: Array) -> tuple[Array, ...]:
        dlogits = shares * -dy[:, None]
        dlogits[rows, targets] += dy
        return dlogits @ head, dlogits.T @ x

    return np.log(shares[rows, targets]), backward


def frozen_log_likelihood(x: Array, head: Array, targets: Array) -> tuple[Array, Gradients]:
    """`log_likelihood` by a head that is not trained, some rows at a time.

    A row's gradient is known but for one factor, so it is made while its logits are there.
    """
    values, slopes = np.empty(len(x), x.dtype), np.empty_like(x)
    for first in range(0, len(x), HEAD_ROWS):
        piece = slice(first, first + HEAD_ROWS)
        values[piece], weights, total = _shares(x[piece], head, targets[piece])
        slopes[piece] = head[targets[piece]] - weights @ head / total
    return values, lambda dy: (dy[:, None] * slopes,)


def score(x: Array, head: Array, targets: Array) -> Array:
    """The values of `frozen_log_likelihood` alone."""
    pieces = [slice(first, first + HEAD_ROWS) for first in range(0, len(x), HEAD_ROWS)]
    return np.concatenate([_shares(x[piece], head, targets[piece])[0] for piece in pieces])


def _shares(x: Array, head: Array, targets: Array) -> tuple[Array, Array, Array]:
    """log p(targets) [R]; the shares [R, V] times their total [R, 1]."""
    logits = x @ head.T
    logits -= logits.max(axis=-1, keepdims=True)
    taken = logits[np.arange(len(x)), targets]
    weights = np.exp(logits, out=logits)
    total = weights.sum(axis=-1, keepdims=True)
    return taken - np.log(total[:, 0]), weights, total
