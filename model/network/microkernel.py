"""The innermost product: sixteen rows of a weight times a few columns, from the stored codes.

A weight is cut into panels of 16 rows, one row per SIMD lane, and a panel into blocks of inputs.
A word of a block holds, for each lane, the codes of a few consecutive inputs:

    a block of 32 inputs in 4 bits          lane 0     lane 1    …   lane 15
                                  word 0  [ q0 … q7  | q0 … q7  | … | q0 … q7  ]   64 bytes
                                  word 1  [ q8 … q15 | …
                                  word 2  [ q16… q23 | …
                                  word 3  [ q24… q31 | …

One load, a shift, a mask and a conversion give input i of all 16 rows. It multiplies the scalar
x[i] of every column, so no sum runs across lanes. A weight is scale · q + minimum, thus a block
adds

    y[lanes] += scale · Σ q[i] · x[i]  +  minimum · Σ x[i]

where Σ x[i] comes from the caller. A column is summed in the same order whatever its company, so
a token's result does not depend on the batch.

The product is written as LLVM instructions on vectors of 16, which any CPU can run, and compiled
for this one in some milliseconds. Its slow counterpart is `PackedLinear.rows`.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from model.network.machine_code import INT, LONG, compile_function, ir
from model.network.panels import LANES, Kind

COLUMNS = (1, 2, 3, 4, 8)  # how many columns one pass can take
MIXED_COLUMNS = (1, 2, 3, 4)  # of the values in the cache, all of whose features pass at once

FLOAT = ir.FloatType()
SHORTS, INTS, HALVES, FLOATS = (
    ir.VectorType(scalar, LANES) for scalar in (ir.IntType(16), INT, ir.HalfType(), FLOAT)
)
ZERO = ir.Constant(FLOATS, [0.0] * LANES)
Value = Any  # an LLVM value or the builder of its instructions; llvmlite has no types


def load(b: Value, address: Value, offset: int, type_: Value) -> Value:
    """The `type_` that lies `offset` bytes behind the address."""
    return b.load(b.inttoptr(b.add(address, LONG(offset)), type_.as_pointer()), align=2)


def load_splat(b: Value, address: Value, offset: int) -> Value:
    """The float `offset` bytes behind the address, in every lane."""
    undefined = ir.Constant(FLOATS, ir.Undefined)
    lane0 = b.insert_element(undefined, load(b, address, offset, FLOAT), INT(0))
    return b.shuffle_vector(lane0, undefined, ir.Constant(INTS, [0] * LANES))


def every(number: int) -> Value:
    """The integer in every lane."""
    return ir.Constant(INTS, [number] * LANES)


def codes_4bit(b: Value, address: Value) -> Iterator[Value]:
    """The 32 inputs of a block, each as 16 lanes of float: likewise below."""
    for word in range(4):
        packed = load(b, address, 64 * word, INTS)
        for shift in range(0, 32, 4):
            yield b.sitofp(b.and_(b.lshr(packed, every(shift)), every(15)), FLOATS)


def codes_8bit(b: Value, address: Value) -> Iterator[Value]:
    for word in range(8):
        packed = load(b, address, 64 * word, INTS)
        for shift in (24, 16, 8, 0):  # up to the top and back down keeps the sign
            yield b.sitofp(b.ashr(b.shl(packed, every(shift)), every(24)), FLOATS)


def halves(b: Value, address: Value) -> Iterator[Value]:
    for i in range(16):
        yield b.fpext(load(b, address, 32 * i, HALVES), FLOATS)


def bfloats(b: Value, address: Value) -> Iterator[Value]:
    for i in range(16):
        short = b.zext(load(b, address, 32 * i, SHORTS), INTS)
        yield b.bitcast(b.shl(short, every(16)), FLOATS)


def floats(b: Value, address: Value) -> Iterator[Value]:
    for i in range(16):
        yield load(b, address, 64 * i, FLOATS)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a panel: its inputs, and the vectors of half floats that scale them."""

    inputs: Callable[[Value, Value], Iterator[Value]]
    num_inputs: int
    num_bytes: int
    num_constants: int = 0  # a scale, then a minimum

    def load_constants(self, b: Value, address: Value, index: Value) -> list[Value]:
        """Those of block `index`; where there are none, a scale of 1."""
        if not self.num_constants:
            return [ir.Constant(FLOATS, [1.0] * LANES)]
        size = LANES * 2
        start = b.add(address, b.mul(index, LONG(size * self.num_constants)))
        loaded = (load(b, start, size * n, HALVES) for n in range(self.num_constants))
        return [b.fpext(constant, FLOATS) for constant in loaded]


BLOCKS = {
    Kind.Q4: Block(codes_4bit, 32, 256, num_constants=2),
    Kind.Q8: Block(codes_8bit, 32, 512, num_constants=1),
    Kind.F16: Block(halves, 16, 512),
    Kind.BF16: Block(bfloats, 16, 512),
    Kind.F32: Block(floats, 16, 1024),
}


class Emitter:
    """A function `name` of integers that sums up vectors of 16 in a loop."""

    def __init__(self, name: str, num_arguments: int) -> None:
        self.module = ir.Module()
        type_ = ir.FunctionType(ir.VoidType(), [LONG] * num_arguments)
        self.function = ir.Function(self.module, type_, name)
        fma = ir.FunctionType(FLOATS, [FLOATS] * 3)
        self._fma = ir.Function(self.module, fma, "llvm.fmuladd.v16f32")
        self.b = ir.IRBuilder(self.function.append_basic_block())

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x · y + z."""
        return self.b.call(self._fma, [x, y, z])

    def add_loop(
        self, count: Value, targets: list[Value], body: Callable[[Value, list[Value]], list[Value]]
    ) -> None:
        """The floats at the targets' addresses ← body(index, floats), `count` times."""
        totals = [load(self.b, target, 0, FLOATS) for target in targets]
        before = self.b.block
        loop = self.function.append_basic_block()
        self.b.branch(loop)
        self.b.position_at_end(loop)
        phis = [self.b.phi(type_) for type_ in [LONG] + [FLOATS] * len(targets)]
        following = [self.b.add(phis[0], LONG(1)), *body(phis[0], phis[1:])]
        after = self.function.append_basic_block()
        self.b.cbranch(self.b.icmp_signed("<", following[0], count), loop, after)
        for phi, first, next_ in zip(phis, [LONG(0), *totals], following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, loop)
        self.b.position_at_end(after)
        for target, total in zip(targets, following[1:], strict=True):
            self.b.store(total, self.b.inttoptr(target, FLOATS.as_pointer()), align=4)


def emit_product(block: Block, columns: int) -> ir.Module:
    """product(words, constants, num_blocks, x, x_stride, y, y_stride): addresses, bytes.

    y[c, lanes] += Σ weight[lanes, i] · x[c, i] for the columns c. A row of x ends with the sums
    of its blocks, which only a kind with minimums reads.
    """
    emitter = Emitter("product", 7)
    b = emitter.b
    words, constants, num_blocks, x, x_stride, y, y_stride = emitter.function.args
    x_rows = [b.add(x, b.mul(x_stride, LONG(c))) for c in range(columns)]
    y_rows = [b.add(y, b.mul(y_stride, LONG(c))) for c in range(columns)]
    sums_at = b.mul(num_blocks, LONG(4 * block.num_inputs))

    def add_block(index: Value, totals: list[Value]) -> list[Value]:
        partial = [[ZERO] * columns, [ZERO] * columns]  # in turn, or each sum would wait for itself
        inputs = [b.add(row, b.mul(index, LONG(4 * block.num_inputs))) for row in x_rows]
        weights = block.inputs(b, b.add(words, b.mul(index, LONG(block.num_bytes))))
        for i, weight in enumerate(weights):
            for c in range(columns):
                factor = load_splat(b, inputs[c], 4 * i)
                partial[i % 2][c] = emitter.fma(weight, factor, partial[i % 2][c])
        scale, *minimum = block.load_constants(b, constants, index)
        sums = [b.add(b.add(row, sums_at), b.mul(index, LONG(4))) for row in x_rows]
        for c in range(columns):
            product = b.fadd(partial[0][c], partial[1][c])
            totals[c] = emitter.fma(scale, product, totals[c])
            if minimum:
                totals[c] = emitter.fma(minimum[0], load_splat(b, sums[c], 0), totals[c])
        return totals

    emitter.add_loop(num_blocks, y_rows, add_block)
    b.ret_void()
    return emitter.module


def emit_mixture(columns: int, width: int) -> ir.Module:
    """mixture(places, num_panels, x, x_stride, y, y_stride): addresses, bytes.

    y[c, :] += Σ x[c, t] · value[t, :] over the tokens of scattered panels, 16 in each; `places`
    holds the address of each panel's values, [16, width].
    """
    emitter = Emitter("mixture", 6)
    b = emitter.b
    places, num_panels, x, x_stride, y, y_stride = emitter.function.args
    for first in range(0, width, 4 * LANES):  # more sums would not fit the registers
        features = range(first, min(first + 4 * LANES, width), LANES)
        targets = [
            b.add(b.add(y, b.mul(y_stride, LONG(c))), LONG(4 * feature))
            for c in range(columns)
            for feature in features
        ]

        def add_panel(index: Value, totals: list[Value], features: range = features) -> list[Value]:
            place = load(b, b.add(places, b.mul(index, LONG(8))), 0, LONG)
            inputs = b.add(x, b.mul(index, LONG(4 * LANES)))
            rows = [b.add(inputs, b.mul(x_stride, LONG(c))) for c in range(columns)]
            for t in range(LANES):
                values = [load(b, place, 4 * (t * width + feature), FLOATS) for feature in features]
                factors = [load_splat(b, row, 4 * t) for row in rows]
                products = itertools.product(factors, values)
                totals = [emitter.fma(f, v, s) for (f, v), s in zip(products, totals, strict=True)]
            return totals

        emitter.add_loop(num_panels, targets, add_panel)
    b.ret_void()
    return emitter.module


@cache
def compile_product(kind: int, columns: int) -> int:
    """The address of `emit_product`'s machine code."""
    return compile_function(emit_product(BLOCKS[Kind(kind)], columns), "product")


@cache
def compile_mixture(columns: int, width: int) -> int:
    """The address of `emit_mixture`'s machine code."""
    return compile_function(emit_mixture(columns, width), "mixture")
