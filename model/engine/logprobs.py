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
    """Indices of the `count` highest values [V], highest first, equal ones by index.

    They lie in the `count` panels with the highest maxima, so few values are looked at twice.
    """
    starts = np.arange(0, len(values), PANEL)
    if count < len(starts):
        peaks = np.maximum.reduceat(values, starts)
        panels = starts[np.argpartition(-peaks, count)[:count]]
        ids = (panels[:, None] + np.arange(PANEL)).ravel()
        ids = ids[ids < len(values)]
    else:
        ids = np.arange(len(values))
    if count < len(ids):
        ids = ids[np.argpartition(-values[ids], count)[:count]]
    return ids[np.lexsort((ids, -values[ids]))]
