"""The part of a layer that looks at other tokens: positions, the cache, attention.

    rotate, store │ attend │ combine

The panels of the cache are multiplied by `microkernel` as weights are: 16 keys at once for all the
queries that share them, then 16 features of the values. A context is summed span by span and the
spans are joined by their maxima and weights (arXiv:2205.14135), in the same order whether one
thread goes through all of them or each is an item of its own.
Slow counterparts: `functional.attention`, `KVStorage.write` and `read`.
Alphabet: T tokens, H heads, Dh head width.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numpy as np
from numba import njit

from model.network.kernel_parts import SPAN, block_sums, call, exp, f4, num_columns, share
from model.network.microkernel import KEYS, VALUES
from model.network.panels import BLOCK, LANES


@njit
def rotate(head, cos, sin, factor):
    """functional.rope of one head in place, times a factor."""
    half = len(cos)
    for i in range(half):
        a, b = head[i] * factor, head[i + half] * factor
        head[i] = a * cos[i] - b * sin[i]
        head[i + half] = b * cos[i] + a * sin[i]


@njit
def store_codes(vector, codes):
    """Round a vector to 16-bit codes; returns the scale to read them with."""
    largest = f4(0)
    for i in range(len(vector)):
        largest = max(largest, abs(vector[i]))
    scale = largest / f4(32767)
    inverse = f4(1) / scale if scale > f4(0) else f4(0)
    for i in range(len(vector)):
        codes[i] = np.int16(np.rint(vector[i] * inverse))
    return scale


@njit
def rotate_and_store(model, step, cache, work, turn):
    """Turn queries and keys to their positions; keys and values go into the cache."""
    layer, part, parts = turn
    H, K, Dh = model.sizes[0], model.sizes[1], model.sizes[2]
    first, last = share(len(work.x), part, parts)
    for t in range(first, last):
        cos, sin = model.cos[step.positions[t]], model.sin[step.positions[t]]
        panel, lane = step.panels[t], step.lanes[t]
        for head in range(H):
            query = work.qkv[t, head * Dh : (head + 1) * Dh]
            rotate(query, cos, sin, f4(1) / np.sqrt(f4(Dh)))
        for head in range(K):
            at = (H + head) * Dh
            key, value = work.qkv[t, at : at + Dh], work.qkv[t, at + K * Dh : at + (K + 1) * Dh]
            rotate(key, cos, sin, f4(1))
            for g in range((Dh + LANES - 1) // LANES):
                span = slice(g * LANES, min((g + 1) * LANES, Dh))
                cache.key_scales[layer, panel, head, g, lane] = store_codes(
                    key[span], cache.keys[layer, panel, head, g, :, lane]
                )
                cache.value_scales[layer, panel, head, g, lane] = store_codes(
                    value[span], cache.values[layer, panel, head, g, lane]
                )


@njit
def merge(state, other):
    """Add one weighted sum of values to another; both end with their maximum and weight."""
    width = len(state) - 2
    if other[width + 1] == f4(0):
        return
    top = max(state[width], other[width])
    a, b = exp(state[width] - top), exp(other[width] - top)
    for i in range(width):
        state[i] = a * state[i] + b * other[i]
    state[width] = top
    state[width + 1] = a * state[width + 1] + b * other[width + 1]


@njit
def attend(model, step, cache, work, turn):
    """Queries over the cache → states; an item is a tile of queries, a head, a cut of contexts."""
    layer, part, parts = turn
    H, num_heads, Dh = model.sizes
    for item in range(part, len(step.tiles) * num_heads * step.splits, parts):
        tile, cut = item // (num_heads * step.splits), item % step.splits
        head, group = item // step.splits % num_heads, H // num_heads
        first, count, sequence = step.tiles[tile]
        columns = count * group
        for c in range(columns):
            feature = (head * group + c % group) * Dh
            for i in range(Dh):
                work.queries[part, c, i] = work.qkv[first + c // group, feature + i]
        state = work.states[item, :columns]
        state[:] = 0
        state[:, -2] = -np.inf
        num_panels = step.positions[first + count - 1] // step.kept + 1
        for start in range(cut * SPAN, num_panels, step.splits * SPAN):
            stop = min(start + SPAN, num_panels)
            at = (layer, part, head, columns)
            score(model, step, cache, work, at, (sequence, start, stop))
            for c in range(columns):
                visible = step.positions[first + c // group] + 1 - start * step.kept
                weigh(work, step.kept, visible, (part, c, stop - start))
            mix(model, cache, work, at, stop - start)
            for c in range(columns):
                merge(state[c], work.sums[part, c])


@njit
def score(model, step, cache, work, at, context):
    """scores ← queries · keys over the panels start … stop of a sequence."""
    layer, part, head, columns = at
    sequence, start, stop = context
    queries, scores = work.queries[part], work.scores[part]
    scores[:columns, : (stop - start) * LANES] = 0
    for j in range(stop - start):
        block = step.block_tables[sequence, (start + j) // step.panels_per_block]
        panel = block * step.panels_per_block + (start + j) % step.panels_per_block
        work.panels[part, j] = panel
        c = 0
        while c < columns:
            arguments = (
                cache.keys[layer, panel, head].ctypes.data,
                cache.key_scales[layer, panel, head].ctypes.data, cache.keys.shape[3],
                queries[c].ctypes.data, queries.strides[0],
                scores[c, j * LANES :].ctypes.data, scores.strides[0],
            )  # fmt: skip
            call(model.products[KEYS, num_columns(columns - c)], arguments)
            c += num_columns(columns - c)


@njit(fastmath={"reassoc", "nnan", "nsz"})
def weigh(work, kept, visible, at):
    """scores ← e^(score - maximum) where visible, else 0; starts the sums of values."""
    part, c, num_panels = at
    scores, sums = work.scores[part, c, : num_panels * LANES], work.sums[part, c]
    used = min((max(visible, 0) + kept - 1) // kept, num_panels)
    for j in range(used):
        scores[j * LANES + min(visible - j * kept, kept) : (j + 1) * LANES] = -np.inf
    scores[used * LANES :] = 0
    top, total = f4(-np.inf), f4(0)
    for i in range(used * LANES):
        top = max(top, scores[i])
    for i in range(used * LANES):
        scores[i] = exp(scores[i] - top)
    for i in range(used * LANES):
        total += scores[i]
    sums[:] = 0
    sums[-2], sums[-1] = top, total


@njit
def mix(model, cache, work, at, num_panels):
    """sums ← Σ score · value over the panels that `score` found."""
    layer, part, head, columns = at
    weights, sums = work.weights[part], work.sums[part]
    for g in range(cache.values.shape[3]):
        for j in range(num_panels):
            scales = cache.value_scales[layer, work.panels[part, j], head, g]
            for c in range(columns):
                for i in range(LANES):
                    weights[c, j * LANES + i] = work.scores[part, c, j * LANES + i] * scales[i]
        for j in range(num_panels):
            codes = cache.values[layer, work.panels[part, j], head, g]
            c = 0
            while c < columns:
                arguments = (
                    codes.ctypes.data, 0, 1,
                    weights[c, j * LANES :].ctypes.data, weights.strides[0],
                    sums[c, g * LANES :].ctypes.data, sums.strides[0],
                )  # fmt: skip
                call(model.products[VALUES, num_columns(columns - c)], arguments)
                c += num_columns(columns - c)


@njit
def combine(model, step, work, turn):
    """states → mixed: join the cuts of each context, divide by the weight."""
    _, part, parts = turn
    H, num_heads, Dh = model.sizes
    group, width = H // num_heads, work.mixed.shape[1] // (BLOCK + 1) * BLOCK
    first_tile, last_tile = share(len(step.tiles), part, parts)
    for tile in range(first_tile, last_tile):
        first, count, _ = step.tiles[tile]
        for head in range(num_heads):
            item = (tile * num_heads + head) * step.splits
            for c in range(count * group):
                state = work.states[item, c]
                for cut in range(1, step.splits):
                    merge(state, work.states[item + cut, c])
                feature = (head * group + c % group) * Dh
                for i in range(Dh):
                    work.mixed[first + c // group, feature + i] = state[i] / state[-1]
        for t in range(first, first + count):
            block_sums(work.mixed[t, :width], work.mixed[t, width:])
