"""A llama's layers as compiled phases: each divides its work among the threads, then all wait.

    norm │ q k v │ rotate, store │ attend │ combine │ o │ norm │ gate up │ down      a layer
    norm │ head                                                                       at the end

Everything is token-major and lives in buffers that the caller keeps, so a step allocates nothing.
At a few tokens every thread computes the norms for itself and nobody waits; where an item of
attention sees a whole context, it also does what `combine` would.
Any batch takes this one road: a token of a prompt is computed as a token of an answer is, in the
same order of additions. Slow counterparts: `functional`, `PackedLinear.rows`, `KVStorage.read`.
Alphabet: T tokens, D model width, H heads, K key-value heads, Dh head width, F inner width.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import numpy as np

from model.network.attention_kernels import attend, combine, finishes, rotate_and_store
from model.network.compiler import kernel
from model.network.kernel_parts import (
    CONSTANT_BYTES,
    CONSTANTS,
    DOWN,
    GATE,
    KIND,
    NUM_BLOCKS,
    NUM_PANELS,
    OUT,
    PANEL_BYTES,
    WORDS,
    K,
    Q,
    V,
    block_sums,
    call,
    exp,
    f4,
    num_columns,
    share,
)  # fmt: skip
from model.network.panels import BLOCK, LANES

PANELS_AT_ONCE = 8  # so many panels stay in the L2 cache while all columns pass
FEW = 8  # below so many tokens, what is done token by token is not worth dividing


@kernel()
def swiglu_row(gate, up, out):
    """functional.swiglu, with e^-|gate| so that nothing overflows."""
    for i in range(len(out)):
        e = exp(-gate[i] if gate[i] > f4(0) else gate[i])
        out[i] = gate[i] * up[i] * (f4(1) if gate[i] > f4(0) else e) / (f4(1) + e)


@kernel(fastmath={"reassoc"})
def norm_row(x, weight, eps, out):
    """functional.rms_norm of one row, with block sums."""
    total = f4(0)
    for i in range(len(weight)):
        total += x[i] * x[i]
    scale = f4(1) / np.sqrt(total / f4(len(weight)) + eps)
    for i in range(len(weight)):
        out[i] = x[i] * scale * weight[i]
    width = len(out) // (BLOCK + 1) * BLOCK
    block_sums(out[:width], out[width:])


@kernel()
def multiply(model, record, rows, x, y):
    """y += x @ W[rows].T for the rows of panels first … last; x [T, in + sums], y [T, rows]."""
    first, last = rows
    x_stride, y_stride = x.strides[0], y.strides[0]
    for start in range(first, last, PANELS_AT_ONCE):
        t = 0
        while t < len(x):
            columns = num_columns(len(x) - t)
            for panel in range(start, min(start + PANELS_AT_ONCE, last)):
                arguments = (
                    record[WORDS] + panel * record[PANEL_BYTES],
                    record[CONSTANTS] + panel * record[CONSTANT_BYTES],
                    record[NUM_BLOCKS],
                    x.ctypes.data + t * x_stride, x_stride,
                    y.ctypes.data + t * y_stride + (panel - first) * 4 * LANES, y_stride,
                )  # fmt: skip
                call(model.products[record[KIND], columns], arguments)
            t += columns


@kernel()
def norm(model, work, which, turn):
    """x → normed, by the norm before attention (0) or before the inner layer (1)."""
    layer, part, parts = turn
    normed = normed_of(work, len(work.x), part)
    first, last = (0, len(work.x)) if len(work.x) < FEW else share(len(work.x), part, parts)
    for t in range(first, last):
        norm_row(work.x[t], model.norms[layer, which], model.eps, normed[t])


@kernel()
def normed_of(work, count, part):
    """Where `count` normed rows are: all in one place, or a few in a place of each thread's own.

    A few cost less than it would to wait for another thread that computes them.
    """
    return work.normed[part if count < FEW else 0, :count]


@kernel()
def shrink(model, step, work, at, x):
    """low_rank ← A · x, for the tokens that have an adapter."""
    layer, which, part, slot = at
    for first, last, adapter in step.segments:
        record = step.adapters[adapter, layer, which, 0]
        low = work.low_rank[part, slot, first:last]
        low[:] = 0
        multiply(model, record, (0, record[NUM_PANELS]), x[first:last], low)


@kernel()
def expand(model, step, work, at, rows, y):
    """y += B · low_rank for the rows of some panels."""
    layer, which, part, slot = at
    for first, last, adapter in step.segments:
        record = step.adapters[adapter, layer, which, 1]
        if record[NUM_PANELS] > 0:
            multiply(model, record, rows, work.low_rank[part, slot, first:last], y[first:last])


@kernel()
def project_qkv(model, step, work, turn):
    """normed → qkv."""
    layer, part, parts = turn
    normed, start = normed_of(work, len(work.x), part), 0
    for which in (Q, K, V):
        record = model.linears[layer, which]
        first, last = share(record[NUM_PANELS], part, parts)
        y = work.qkv[:, start + first * LANES : start + last * LANES]
        y[:] = 0
        multiply(model, record, (first, last), normed, y)
        shrink(model, step, work, (layer, which, part, 0), normed)
        expand(model, step, work, (layer, which, part, 0), (first, last), y)
        start += record[NUM_PANELS] * LANES


@kernel()
def add_projection(model, step, work, which, turn):
    """x += OUT · mixed, or x += DOWN · inner."""
    layer, part, parts = turn
    record = model.linears[layer, which]
    first, last = share(record[NUM_PANELS], part, parts)
    source = work.mixed if which == OUT else work.inner
    y = work.x[:, first * LANES : last * LANES]
    multiply(model, record, (first, last), source, y)
    shrink(model, step, work, (layer, which, part, 0), source)
    expand(model, step, work, (layer, which, part, 0), (first, last), y)


@kernel()
def gate_and_up(model, step, work, turn):
    """normed → inner: functional.swiglu of both projections, a few panels at a time."""
    layer, part, parts = turn
    width = work.inner.shape[1] // (BLOCK + 1) * BLOCK
    num_panels = model.linears[layer, GATE, NUM_PANELS]
    normed = normed_of(work, len(work.x), part)
    for slot in range(2):
        shrink(model, step, work, (layer, GATE + slot, part, slot), normed)
    first, last = share(width // BLOCK, part, parts)
    for start in range(2 * first, 2 * last, PANELS_AT_ONCE):
        rows = (start, min(start + PANELS_AT_ONCE, 2 * last, num_panels))
        for slot in range(2):
            y = work.gates[part, slot]
            y[:] = 0
            multiply(model, model.linears[layer, GATE + slot], rows, normed, y)
            expand(model, step, work, (layer, GATE + slot, part, slot), rows, y)
        for t in range(len(work.inner)):
            out = work.inner[t, start * LANES : rows[1] * LANES]
            swiglu_row(work.gates[part, 0, t], work.gates[part, 1, t], out)
            block_sums(
                work.inner[t, start * LANES : min(start + PANELS_AT_ONCE, 2 * last) * LANES],
                work.inner[t, width + start // 2 :],
            )


@kernel()
def last_norm(model, step, work, turn):
    """x → normed at the rows whose logits are wanted."""
    _, part, parts = turn
    count = len(step.logit_rows)
    normed = normed_of(work, count, part)
    first, last = (0, count) if count < FEW else share(count, part, parts)
    for r in range(first, last):
        norm_row(work.x[step.logit_rows[r]], model.last_norm, model.eps, normed[r])


@kernel()
def project_head(model, work, turn):
    """normed → logits."""
    _, part, parts = turn
    first, last = share(model.head[NUM_PANELS], part, parts)
    y = work.logits[:, first * LANES : last * LANES]
    y[:] = 0
    multiply(model, model.head, (first, last), normed_of(work, len(y), part), y)


@kernel()
def run_phase(phase, model, step, cache, work, turn):  # noqa: C901
    if phase == 0:
        norm(model, work, 0, turn)
    elif phase == 1:
        project_qkv(model, step, work, turn)
    elif phase == 2:
        rotate_and_store(model, step, cache, work, turn)
    elif phase == 3:
        attend(model, step, cache, work, turn)
    elif phase == 4:
        if not finishes(model, step):
            combine(model, step, work, turn)
    elif phase == 5:
        add_projection(model, step, work, OUT, turn)
    elif phase == 6:
        norm(model, work, 1, turn)
    elif phase == 7:
        gate_and_up(model, step, work, turn)
    elif phase == 8:
        add_projection(model, step, work, DOWN, turn)
    elif phase == 9:
        last_norm(model, step, work, turn)
    else:
        project_head(model, work, turn)


PHASES = 9  # of a layer; the last two come once
TOKENWISE = (2, 4)
NORMS = (0, 6, 9)


@kernel()
def is_alone(phase, model, step, work):
    """Whether nobody has to wait after a phase: it was skipped, or every thread did it all."""
    if phase == 9:
        return len(step.logit_rows) < FEW
    return (phase in NORMS and len(work.x) < FEW) or (phase == 4 and finishes(model, step))


@kernel(nogil=True, cache=True)
def run(model, step, cache, work, member):
    """One member's part in all layers of a batch and the head: x → logits."""
    number, size, meet, barrier = member
    layers = len(model.linears)
    for turn in range(layers * PHASES + 2):
        layer = min(turn // PHASES, layers - 1)
        phase = turn - layer * PHASES
        parts = 1 if len(work.x) < FEW and phase in TOKENWISE else size
        if number < parts:
            run_phase(phase, model, step, cache, work, (layer, number, parts))
        if not is_alone(phase, model, step, work):
            call(meet, (barrier, size))
