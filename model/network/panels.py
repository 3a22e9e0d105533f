"""How weights lie in memory for the kernels: panels of sixteen rows, in the file's own codes.

`microkernel` draws the layout and multiplies by it; here it is made, and undone in plain numpy.
Alphabet: G panels, B blocks of 32 inputs, W words a block and lane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.network.linear import Floats
from model.network.tensor import Tensor

LANES = 16
BLOCK = 32
CACHE_LINE = 64  # bytes


class Kind(IntEnum):
    """How one weight is stored; the kernels know it by this number."""

    Q4 = 0  # unsigned 4-bit codes, scale and minimum a block
    Q8 = 1  # signed 8-bit codes, scale a block
    F16 = 2
    BF16 = 3
    F32 = 4


WORDS: dict[Kind, type[np.unsignedinteger]] = {
    Kind.Q4: np.uint32, Kind.Q8: np.uint32,
    Kind.F16: np.uint16, Kind.BF16: np.uint16, Kind.F32: np.uint32,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PackedLinear:
    """A weight in panels. Rows are filled up to 16 and inputs to 32 with zeros."""

    kind: Kind
    out_features: int
    in_features: int
    words: NDArray[np.unsignedinteger]  # [G, B, W, 16]
    constants: NDArray[np.float16]  # [G, B, C, 16]: Q4 scale and minimum, Q8 scale, others C = 0

    def __call__(self, x: Floats) -> Floats:
        """W @ x, expanded for BLAS: the slow way, for where nothing is compiled."""
        product: Floats = self.dense() @ x
        return product

    def dense(self) -> Floats:
        """The whole weight in float32."""
        return self.rows(np.arange(self.out_features))

    def rows(self, ids: NDArray[np.integer]) -> Floats:
        """The rows `ids`, [len(ids), in_features]."""
        panels, lanes = np.divmod(ids, LANES)
        words = np.ascontiguousarray(self.words[panels, :, :, lanes])  # [n, B, W]
        if self.kind in (Kind.Q4, Kind.Q8):
            constants = self.constants[panels, :, :, lanes, None].astype(np.float32)
            values = _codes(self.kind, words) * constants[:, :, 0]
            if self.kind == Kind.Q4:
                values += constants[:, :, 1]
        elif self.kind == Kind.BF16:
            values = (words.astype(np.uint32) << 16).view(np.float32)
        else:
            values = words.view("f2" if self.kind == Kind.F16 else "f4").astype(np.float32)
        return values.reshape(len(ids), -1)[:, : self.in_features]


def _codes(kind: Kind, words: NDArray[np.unsignedinteger]) -> Floats:
    """The codes in `words` [n, B, W] as numbers, [n, B, 32]."""
    if kind == Kind.Q8:
        return words.view(np.int8).astype(np.float32)
    pairs = words.view(np.uint8)
    return np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*words.shape[:2], -1).astype("f4")


def pack(tensor: Tensor) -> PackedLinear:
    """The tensor [out, in] in panels; types that no kernel knows are expanded to float32."""
    out, inputs = tensor.shape
    if tensor.type_name in ("Q4_0", "Q4_1", "Q8_0"):
        kind, words, constants = _split_blocks(tensor.type_name, tensor.raw)
    else:
        kind = Kind[tensor.type_name] if tensor.type_name in ("F16", "BF16") else Kind.F32
        raw = tensor.dequantize() if kind == Kind.F32 else tensor.raw
        values = raw.view(WORDS[kind]).reshape(out, inputs)
        words = np.pad(values, ((0, 0), (0, -inputs % BLOCK))).reshape(out, -1, BLOCK)
        constants = np.empty((*words.shape[:2], 0), np.float16)
    return PackedLinear(kind, out, inputs, _panels(words), _panels(constants))


def _split_blocks(
    type_name: str, raw: NDArray[np.uint8]
) -> tuple[Kind, NDArray[np.uint32], NDArray[np.float16]]:
    """GGUF's rows of blocks [out, bytes] as words [out, B, W] and constants [out, B, C]."""
    num_constants = 2 if type_name == "Q4_1" else 1
    code_bytes = BLOCK if type_name == "Q8_0" else BLOCK // 2
    blocks = raw.reshape(len(raw), -1, 2 * num_constants + code_bytes)
    constants = np.ascontiguousarray(blocks[..., :-code_bytes]).view(np.float16)
    codes = np.ascontiguousarray(blocks[..., -code_bytes:])
    if type_name == "Q8_0":
        return Kind.Q8, codes.view(np.uint32), constants
    if type_name == "Q4_0":  # scale · (code - 8): the minimum is exact in half precision
        constants = np.concatenate([constants, constants * np.float16(-8)], axis=-1)
    # code j lies in the low half of byte j, code j + 16 in its high half
    in_order = np.concatenate([codes & 15, codes >> 4], axis=-1)
    pairs = np.ascontiguousarray(in_order[..., 0::2] | in_order[..., 1::2] << 4)
    return Kind.Q4, pairs.view(np.uint32), constants


def _panels(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows [out, B, n] as panels [G, B, n, 16], the last filled up with zeros."""
    out, B, n = rows.shape
    grouped = np.pad(rows, ((0, -out % LANES), (0, 0), (0, 0)))
    grouped = grouped.reshape(len(grouped) // LANES, LANES, B, n)
    panels = _slabs.take((len(grouped), B, n, LANES), rows.dtype)
    panels[:] = np.moveaxis(grouped, 1, -1)
    return panels


class Slabs:
    """Memory cut from large pieces, which numpy asks the system to map in huge pages.

    A weight of its own would lie in small ones, and a step would wait for their addresses.
    """

    def __init__(self, size: int = 32 << 20) -> None:
        self._size = size
        self._free = np.empty(0, np.uint8)

    def take(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Zeros that start on a cache line."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = -(-size // CACHE_LINE) * CACHE_LINE
        if room > len(self._free):
            self._free = aligned((max(self._size, room),), np.uint8)
        taken, self._free = self._free[:size], self._free[room:]
        array: NDArray[Any] = taken.view(dtype).reshape(shape)
        return array


_slabs = Slabs()


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that start on a cache line, so that no vector load straddles two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    array: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
    return array
