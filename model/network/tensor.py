"""One weight of a checkpoint as its file holds it: the codes, their type, and how to expand them.

Knows the number formats. Leaves out files (`model.weights` makes these records) and arithmetic
(`linear` multiplies by them). Every quantisation of GGUF keeps its blocks inside a row, so `raw`
has one line of bytes per row and rows may be taken in any order without touching a code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

UNPACKED = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """`shape` counts weights, e.g. [out, in]; `raw` is uint8 [out, bytes per row], often mapped.

    `type_name` is GGUF's name of the format: "F32", "F16", "BF16", "Q4_1", "Q8_0", ...
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    raw: NDArray[np.uint8]

    @classmethod
    def from_array(cls, name: str, array: NDArray[np.float32]) -> Tensor:
        """A float32 tensor that shares memory with a contiguous `array`."""
        rows = np.ascontiguousarray(array, dtype=np.float32)
        raw = rows.reshape(math.prod(rows.shape[:-1]), -1).view(np.uint8)
        return cls(name, array.shape, "F32", raw)

    def with_rows(self, order: Sequence[int] | NDArray[np.intp]) -> Tensor:
        """The same tensor with row `order[i]` in place i; the codes are copied, not decoded."""
        return replace(self, raw=self.raw[np.asarray(order)])

    def dequantize(self) -> NDArray[np.float32]:
        """The weights as float32 in `shape`; a view of the file where it already holds float32.

        ValueError for the few quantisations that the `gguf` package cannot expand.
        """
        dtype = UNPACKED.get(self.type_name)
        if dtype is None:
            # gguf takes a fifth of a second to import and plain formats do without it
            from gguf import GGMLQuantizationType, quants

            try:
                values = quants.dequantize(self.raw, GGMLQuantizationType[self.type_name])
            except NotImplementedError as error:
                raise ValueError(f"{self.name} has the quantisation {self.type_name}") from error
            return cast(NDArray[np.float32], values).reshape(self.shape)
        values = self.raw.view(dtype).reshape(self.shape)
        if self.type_name == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False)
