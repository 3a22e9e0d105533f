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

from model.network.compiler import kernel
from model.network.kernel_parts import SPAN, block_sums, call, exp, f4, num_columns, share
from model.network.panels import BLOCK, LANES, Kind

KEYS = int(Kind.F32)  # how they lie in the cache


@kernel()
def rotate(head, cos, sin, factor):
    """functional.rope of one head in place, times a factor."""
    half = len(cos)
    for i in range(half):
        a, b = head[i] * factor, head[i + half] * factor
        head[i] = a * cos[i] - b * sin[i]
        head[i + half] = b * cos[i] + a * sin[i]


@kernel()
def rotate_and_store(model, step, cache, work, turn):
    """Turn queries and keys to their positions; keys and values go into the cache."""
    layer, part, parts = turn
    H, K, Dh = model.sizes
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
            for i in range(Dh):
                cache.keys[layer, head, panel, i, lane] = key[i]
                cache.values[layer, head, panel, lane, i] = value[i]


@kernel()
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


@kernel()
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
        state = work.states[item]
        state[:columns, -1] = 0
        num_panels = step.positions[first + count - 1] // step.kept + 1
        for start in range(cut * SPAN, num_panels, step.splits * SPAN):
            panels = step.panel_tables[sequence, start : min(start + SPAN, num_panels)]
            at = (layer, head, part, columns)
            sums = state if start == cut * SPAN else work.sums[part]
            score(model, cache, work, at, panels)
            for c in range(columns):
                visible = step.positions[first + c // group] + 1 - start * step.kept
                weigh(work.scores[part, c, : len(panels) * LANES], sums[c], step.kept, visible)
            mix(model, cache, work, at, (panels, sums))
            if start > cut * SPAN:
                for c in range(columns):
                    merge(state[c], sums[c])
        if finishes(model, step):
            finish(work, (first, count), (head * group * Dh, group, Dh), state)


@kernel()
def finishes(model, step):
    """Whether an item of `attend` is whole, with whole blocks of features, and nothing is left."""
    H, num_heads, Dh = model.sizes
    return step.splits == 1 and H // num_heads * Dh % BLOCK == 0


@kernel()
def finish(work, tokens, features, state):
    """state → mixed, for the features of one group of heads."""
    start, group, Dh = features
    width = work.mixed.shape[1] // (BLOCK + 1) * BLOCK
    for t in range(tokens[1]):
        row = work.mixed[tokens[0] + t]
        for head in range(group):
            at = start + head * Dh
            scale(state[t * group + head], row[at : at + Dh])
        blocks = row[width + start // BLOCK :]
        block_sums(row[start : start + group * Dh], blocks)


@kernel()
def score(model, cache, work, at, panels):
    """scores ← queries · keys of some panels."""
    layer, head, part, columns = at
    queries, scores = work.queries[part], work.scores[part]
    scores[:columns, : len(panels) * LANES] = 0
    keys = cache.keys[layer, head, 0]
    for j in range(len(panels)):
        c = 0
        while c < columns:
            arguments = (
                keys.ctypes.data + panels[j] * cache.keys.strides[2], 0, len(keys) // LANES,
                queries.ctypes.data + c * queries.strides[0], queries.strides[0],
                scores.ctypes.data + c * scores.strides[0] + j * 4 * LANES, scores.strides[0],
            )  # fmt: skip
            call(model.products[KEYS, num_columns(columns - c)], arguments)
            c += num_columns(columns - c)


@kernel(fastmath={"reassoc", "contract", "nnan", "nsz"})
def weigh(scores, sums, kept, visible):
    """scores ← e^(score - maximum) where visible, else 0; starts the sums of values."""
    used = min((max(visible, 0) + kept - 1) // kept, len(scores) // LANES)
    for j in range(used - 1 if kept == LANES else 0, used):
        scores[j * LANES + min(visible - j * kept, kept) : (j + 1) * LANES] = -np.inf
    scores[used * LANES :] = 0
    top, total = f4(-np.inf), f4(0)
    for j in range(used):  # panel by panel: an inner loop of known length is vectorised whole
        highest = f4(-np.inf)
        for i in range(j * LANES, j * LANES + LANES):
            highest = scores[i] if scores[i] > highest else highest
        top = highest if highest > top else top
    for j in range(used):
        part = f4(0)
        for i in range(j * LANES, j * LANES + LANES):
            scores[i] = exp(scores[i] - top)
            part += scores[i]
        total += part
    sums[:] = 0
    sums[-2], sums[-1] = top, total


@kernel()
def mix(model, cache, work, at, found):
    """sums ← Σ score · value over some panels."""
    layer, head, part, columns = at
    panels, sums = found
    scores, places, values = work.scores[part], work.places[part], cache.values[layer, head, 0]
    for j in range(len(panels)):
        places[j] = values.ctypes.data + panels[j] * cache.values.strides[2]
    for c in range(0, columns, 4):
        arguments = (
            places.ctypes.data, len(panels),
            scores.ctypes.data + c * scores.strides[0], scores.strides[0],
            sums.ctypes.data + c * sums.strides[0], sums.strides[0],
        )  # fmt: skip
        call(model.mixtures[min(columns - c, 4)], arguments)


@kernel()
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
                scale(state, work.mixed[first + c // group, feature : feature + Dh])
        for t in range(first, first + count):
            block_sums(work.mixed[t, :width], work.mixed[t, width:])


@kernel()
def scale(state, out):
    """The mean of the values: their sum by its weight."""
    factor = f4(1) / state[-1]
    for i in range(len(out)):
        out[i] = state[i] * factor
