"""What the network itself thought of a token, before any rule of the request changed the logits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
PANEL = 256


class TokenLogprobs(NamedTuple):
    """Natural logarithms; `rank` counts from 1, the likeliest token."""

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]  # (token id, logprob), likeliest first


def token_logprobs(raw: Row, token_id: int, num_top: int) -> TokenLogprobs:
    """The logprob of `token_id` under raw logits [V], beside the `num_top` best."""
    peak = float(raw.max())
    normaliser = peak + float(np.log(np.exp(raw - peak).sum(dtype=np.float64)))
    best = top_ids(raw, num_top)
    top = zip(best.tolist(), (raw[best].astype(np.float64) - normaliser).tolist(), strict=True)
    rank = 1 + int(np.count_nonzero(raw > raw[token_id]))
    return TokenLogprobs(token_id, float(raw[token_id]) - normaliser, rank, tuple(top))


def top_ids(values: Row, count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest values [V], highest first, equal ones by index."""
    if count == 0:
        return np.arange(0)
    ids = np.flatnonzero(values >= kth_highest(values, min(count, len(values))))
    return ids[np.argsort(-values[ids], kind="stable")][:count]


def kth_highest(values: Row, k: int) -> np.float32:
    """The value [V] of rank k, counted from 1.

    The k-th highest of the maxima of panels is not above it, so few values must be ordered.
    """
    peaks = np.maximum.reduceat(values, np.arange(0, len(values), PANEL))
    if k <= len(peaks):
        values = values[values >= np.partition(peaks, -k)[-k]]
    return np.float32(np.partition(values, -k)[-k])
