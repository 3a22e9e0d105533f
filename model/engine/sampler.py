"""From a row of logits to the next token, in this order:

raw logits → allowed ids, grammar → bad words, min_tokens, logit_bias
→ repetition, frequency, presence → greedy shortcut
→ temperature → min_p → top_k → top_p → one draw from the sequence's generator.

The engine finds the highest raw logit of all rows at once; most rows need nothing else.
Alphabet: V vocabulary, N tokens left to choose from.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from model.engine.logprobs import PANEL, Row, kth_highest
from model.engine.sequence import SamplingParams, Sequence

FORBIDDEN = np.float32(-np.inf)
LIKELY = 1e-3  # of the likeliest token's probability


class NothingToSample(Exception):
    """The row holds NaN, or the rules of the request leave no token."""


def choose(raw: Row, best: int, sequence: Sequence) -> int:
    """The next token of `sequence` under raw logits [V], whose highest is at `best`.

    Advances the sequence's generator by one draw unless it is greedy.
    """
    if not np.isfinite(raw[best]):  # NaN counts as the highest
        raise NothingToSample("the logits are not finite")
    if sequence.is_plain:
        return best
    logits = apply_rules(raw, sequence)
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        raise NothingToSample("the request's rules leave no token")
    if sequence.rng is None:
        return best
    ids, weights = candidates(logits, sequence.params)
    return int(ids[draw(weights, sequence.rng.random())])


def apply_rules(raw: Row, sequence: Sequence) -> Row:
    """A copy of the logits [V] in which forbidden tokens are −inf and the others weighted."""
    params = sequence.params
    if params.allowed_token_ids is None:
        logits = raw.copy()
    else:
        logits = np.full_like(raw, FORBIDDEN)
        allowed = list(params.allowed_token_ids)
        logits[allowed] = raw[allowed]
    if sequence.matcher is not None:
        mask = sequence.matcher.mask()
        logits[len(mask) :] = FORBIDDEN
        logits[: len(mask)][~mask] = FORBIDDEN
    output = sequence.token_ids[sequence.num_prompt_tokens :] if sequence.bad_words else []
    for *start, last in sequence.bad_words:
        if output[len(output) - len(start) :] == start:
            logits[last] = FORBIDDEN
    if not sequence.may_stop:
        logits[[*sequence.eos_ids, *params.stop_token_ids]] = FORBIDDEN
    for token_id, bias in params.logit_bias.items():
        logits[token_id] += bias
    if sequence.counts is not None:
        _penalise(logits, sequence, sequence.counts)
    return logits


def _penalise(logits: Row, sequence: Sequence, counts: Counter[int]) -> None:
    params = sequence.params
    if params.repetition_penalty != 1.0:
        seen = np.unique(sequence.token_ids)
        scores, factor = logits[seen], np.float32(params.repetition_penalty)
        logits[seen] = np.where(scores > 0, scores / factor, scores * factor)
    ids = np.fromiter(counts, np.intp, len(counts))
    times = np.fromiter(counts.values(), np.float32, len(counts))
    logits[ids] -= np.float32(params.frequency_penalty) * times
    logits[ids] -= np.float32(params.presence_penalty)


def candidates(logits: Row, params: SamplingParams) -> tuple[NDArray[np.intp], Row]:
    """The ids [N] that may be drawn and weights [N] proportional to their probabilities.

    top_k and top_p keep what is as likely as the last one they keep, so no order of equals matters.
    """
    weights = logits - logits.max()
    weights /= np.float32(params.temperature)
    np.exp(weights, out=weights)
    floor = np.float32(params.min_p)
    if 0 < params.top_k < len(weights):
        floor = max(floor, kth_highest(weights, params.top_k))
    if params.top_p < 1:
        floor = max(floor, _nucleus_floor(weights, floor, params.top_p))
    if floor <= 0:
        return np.arange(len(weights)), weights
    ids = np.flatnonzero(weights >= floor)
    return ids, weights[ids]


def _nucleus_floor(weights: Row, floor: np.float32, top_p: float) -> np.float32:
    """The lowest weight among the likeliest that together reach `top_p` of those above `floor`."""
    kept = weights if floor <= 0 else weights[weights >= floor]
    goal = top_p * float(kept.sum(dtype=np.float64))
    # tokens below this could not fill what top_p leaves out, even all together
    spare = (1 - top_p) / top_p * goal / len(kept)
    for least in (LIKELY, spare):  # mostly a few likely tokens are enough, and quickly sorted
        likeliest = np.sort(kept[kept >= least])[::-1]
        reached = likeliest.cumsum(dtype=np.float64)
        if reached[-1] >= goal:
            break
    last = int(np.searchsorted(reached, goal))
    return np.float32(likeliest[min(last, len(likeliest) - 1)])


def draw(weights: Row, uniform: float) -> int:
    """The index that a number in [0, 1) picks when each takes a share as large as its weight.

    Looks for the panel first, then inside it: a running sum over all of V costs ten times more.
    """
    starts = np.arange(0, len(weights), PANEL)
    panels = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    panel, rest = _pick(panels, uniform * panels[-1])
    start = int(starts[panel])
    inside = weights[start : start + PANEL].cumsum(dtype=np.float64)
    return start + _pick(inside, rest)[0]


def _pick(sums: NDArray[np.float64], target: float) -> tuple[int, float]:
    """The first place whose running sum exceeds `target`, and how far into it the target is."""
    # a target rounded up to the very end would pick a weight of zero
    target = min(target, float(np.nextafter(sums[-1], 0)))
    place = int(np.searchsorted(sums, target, side="right"))
    return place, target - float(sums[place - 1]) if place else target


def reference_probabilities(raw: Row, sequence: Sequence) -> NDArray[np.float64]:
    """Slow and obvious: the distribution [V] that `sample` draws from."""
    params, logits = sequence.params, apply_rules(raw, sequence).astype(np.float64)
    if params.is_greedy:
        logits[np.arange(len(logits)) != logits.argmax()] = FORBIDDEN
    p: NDArray[np.float64] = np.exp((logits - logits.max()) / (params.temperature or 1))
    p[p < params.min_p * p.max()] = 0
    if params.top_k > 0:
        p[p < np.sort(p)[::-1][: params.top_k][-1]] = 0
    p /= p.sum()
    likeliest = np.sort(p)[::-1]
    last = int(np.argmax(likeliest.cumsum() > params.top_p - 1e-7))
    p[p < likeliest[last]] = 0
    p /= p.sum()
    return p
