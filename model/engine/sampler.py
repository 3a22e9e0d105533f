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

from model.engine.logprobs import PANEL, Row, top_ids
from model.engine.sequence import SamplingParams, Sequence

FORBIDDEN = np.float32(-np.inf)


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

    Tokens as likely as the last of the top k stay in, as in vLLM.
    """
    weights = np.exp((logits - logits.max()) / np.float32(params.temperature))
    floor = np.float32(params.min_p)
    if 0 < params.top_k < len(weights):
        floor = max(floor, weights[top_ids(weights, params.top_k)[-1]])
    if params.top_p < 1:
        # tokens below this share could not fill what top_p leaves out, even all together
        mass = weights[weights >= floor].sum(dtype=np.float64)
        floor = max(floor, np.float32((1 - params.top_p) * mass / len(weights)))
    if floor <= 0:
        return np.arange(len(weights)), weights
    ids = np.flatnonzero(weights >= floor)
    weights = weights[ids]
    if params.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        reached = weights[order].cumsum(dtype=np.float64)
        order = order[: int(np.searchsorted(reached, params.top_p * mass)) + 1]
        ids, weights = ids[order], weights[order]
    return ids, weights


def draw(weights: Row, uniform: float) -> int:
    """The index that a number in [0, 1) picks when each takes a share as large as its weight.

    Looks for the panel first, then inside it: a running sum over all of V costs ten times more.
    """
    starts = np.arange(0, len(weights), PANEL)
    panels = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    target = uniform * panels[-1]
    panel = int(np.searchsorted(panels, target, side="right"))
    start = int(starts[panel])
    inside = weights[start : start + PANEL].cumsum(dtype=np.float64)
    target -= panels[panel - 1] if panel else 0.0
    found = start + int(np.searchsorted(inside, target, side="right"))
    # the two sums may differ in the last bit
    return min(found, start + len(inside) - 1)


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
    kept = 0.0
    for token_id in np.argsort(-p, kind="stable"):
        if kept >= params.top_p:
            p[token_id] = 0
        kept += p[token_id]
    p /= p.sum()
    return p
