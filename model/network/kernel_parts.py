"""What the kernels of a step share: the data that they are handed, and their smallest functions.

numba's functions carry no types; what an array holds stands in the tuples.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from model.network.compiler import kernel
from model.network.machine_code import LONG, ir
from model.network.panels import BLOCK

KIND, NUM_PANELS, NUM_BLOCKS, WORDS, CONSTANTS, PANEL_BYTES, CONSTANT_BYTES = range(7)
NUM_FIELDS = 7  # of a weight's record
Q, K, V, OUT, GATE, UP, DOWN = range(7)
SPAN = 32  # panels of the context that are summed up at a time
f4 = np.float32


class Model(NamedTuple):
    """What a step reads and never changes."""

    products: Any  # int64 [kinds, columns + 1]: addresses of `microkernel.emit_product`'s code
    mixtures: Any  # int64 [columns + 1]: of `emit_mixture`'s
    linears: Any  # int64 [L, 7, 7]: a record for each of Q … DOWN, with the fields KIND …
    norms: Any  # float32 [L, 2, D]
    last_norm: Any  # float32 [D]
    head: Any  # int64 [7], a record
    cos: Any  # float32 [positions, Dh / 2]
    sin: Any
    sizes: Any  # int64 [3]: H, K, Dh
    eps: Any  # float32


class Step(NamedTuple):
    """One batch."""

    positions: Any  # int32 [T]
    panels: Any  # int32 [T] where each token's key and value go: panel and lane
    lanes: Any
    panel_tables: Any  # int32 [B, panels]
    kept: Any  # how many positions a panel of the cache keeps, at most 16
    tiles: Any  # int32 [N, 3]: first token, number of tokens, sequence
    splits: Any  # into how many items the context of a tile is cut
    logit_rows: Any  # int32 [R]
    segments: Any  # int32 [S, 3]: first token, last token, adapter
    adapters: Any  # int64 [adapters, L, 7, 2, 7]: records of A and B, zeros where there are none


class Cache(NamedTuple):
    """Keys and values, laid out in `kv_storage`."""

    keys: Any
    values: Any


class Work(NamedTuple):
    """Activations; rows that a product reads end with the sums of their blocks of 32."""

    x: Any  # [T, D]
    normed: Any  # [threads, T, D + sums], the first for all where T is large
    qkv: Any  # [T, (H + 2K) · Dh]
    mixed: Any  # [T, H · Dh + sums]
    inner: Any  # [T, F + sums]
    gates: Any  # [threads, 2, T, 128]
    low_rank: Any  # [threads, 2, T, rank], the adapters' A · x
    queries: Any  # [threads, columns, Dh]
    scores: Any  # [threads, columns, SPAN · 16]
    places: Any  # [threads, SPAN], addresses of the values in sight
    sums: Any  # [threads, columns, Dh + 2]: a weighted sum of values, its maximum, its weight
    states: Any  # [items, columns, Dh + 2], the same
    logits: Any  # [R, V]


@intrinsic
def call(context, address, arguments):
    """Call machine code at an address with a tuple of integers; it returns nothing."""

    def emit(context, b, signature, values):
        arguments = cgutils.unpack_tuple(b, values[1])
        function = ir.FunctionType(ir.VoidType(), [LONG] * len(arguments))
        b.call(b.inttoptr(values[0], function.as_pointer()), arguments)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(arguments))), emit


@kernel(inline="always")
def exp(x):
    """e^x for x ≤ 0 as 2^n · e^r, |r| ≤ ln2 / 2, by Taylor's sum to r^7: good to 1e-7, 0 by -88."""
    x = f4(-88) if x < f4(-88) else x
    n = np.int32(x * f4(1.44269504) - f4(0.5))
    r = x - f4(n) * f4(0.693359375) + f4(n) * f4(2.12194440e-4)
    p = f4(1 / 5040) * r + f4(1 / 720)
    p = (p * r + f4(1 / 120)) * r + f4(1 / 24)
    p = (p * r + f4(1 / 6)) * r + f4(0.5)
    power = np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * r * r + r + f4(1)) * power


@kernel()
def share(count, part, parts):
    """The [first, last) of `count` things that are thread `part`'s."""
    return part * count // parts, (part + 1) * count // parts


@kernel(fastmath={"reassoc"})
def block_sums(features, sums):
    """The sum of each block of 32 features."""
    for block in range(len(features) // BLOCK):
        total = f4(0)
        for i in range(BLOCK):
            total += features[block * BLOCK + i]
        sums[block] = total


@kernel()
def num_columns(left):
    """How many of the columns that are left one pass takes."""
    return 8 if left >= 8 else min(left, 4)
