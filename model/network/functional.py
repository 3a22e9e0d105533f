"""The formulas of a llama, each once, in plain numpy: the reference that fast paths must match.

Alphabet: T queries, S cached tokens, H heads, K key-value heads, Dh head width, D model width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.network.linear import Floats


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    """Scale rows to unit mean square: x / √(mean(x²) + eps) · weight (arXiv:1910.07467)."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    normed: Floats = x / np.sqrt(mean_square + np.float32(eps)) * weight
    return normed


def softmax(x: Floats) -> Floats:
    """exp(x) / Σ exp(x) along the last axis, shifted by the maximum against overflow."""
    weights: Floats = np.exp(x - np.max(x, axis=-1, keepdims=True))
    weights /= np.sum(weights, axis=-1, keepdims=True)
    return weights


def swiglu(gate: Floats, up: Floats) -> Floats:
    """silu(gate) · up, with silu(x) = x · sigmoid(x) (arXiv:2002.05202)."""
    # exp overflows to inf for very negative gates and the quotient is then the right limit, 0
    with np.errstate(over="ignore"):
        activated: Floats = gate / (1 + np.exp(-gate)) * up
    return activated


def rope_table(
    length: int, head_dim: int, base: float, factors: Sequence[float] = ()
) -> tuple[Floats, Floats]:
    """Cosines and sines [length, head_dim / 2] of position · base^(-2i / head_dim) / factors[i]."""
    frequencies = base ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    frequencies /= np.asarray(factors or 1.0)
    angles = np.outer(np.arange(length, dtype=np.float64), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rope(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotate the pairs (i, i + Dh/2) of each head (arXiv:2104.09864, Hugging Face's layout).

    x [T, H, Dh]; cos and sin [T, Dh/2], the table's rows at the tokens' positions.
    """
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(q: Floats, k: Floats, v: Floats, positions: NDArray[np.integer]) -> Floats:
    """Causal attention: query t sees the cached tokens 0 … positions[t].

    q [T, H, Dh], k and v [S, K, Dh] → [T, H, Dh]. H / K query heads share a key-value head.
    """
    T, H, Dh = q.shape
    S, K, _ = k.shape
    grouped = q.reshape(T, K, H // K, Dh).transpose(1, 2, 0, 3)  # [K, H/K, T, Dh]
    scores = grouped @ k.transpose(1, 2, 0)[:, None] / np.float32(np.sqrt(Dh))
    hidden = np.arange(S) > np.asarray(positions)[:, None]
    mixed = softmax(np.where(hidden, np.float32(-np.inf), scores)) @ v.transpose(1, 0, 2)[:, None]
    return mixed.transpose(2, 0, 1, 3).reshape(T, H, Dh)
