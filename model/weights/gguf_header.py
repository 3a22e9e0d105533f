"""The container format GGUF: metadata and tensors, as views of the mapped file.

Knows versions 2 and 3, little-endian (the specification is ggml's docs/gguf.md). Leaves out what
the keys mean. It reads a vocabulary of 50,000 words in a tenth of the time that the `gguf` package
takes, and says where a file is cut off; number formats are the package's.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from model.network.tensor import Tensor
from model.weights.errors import TruncatedFile, UnsupportedArchitecture, WrongShape
from model.weights.settings import Settings

SCALARS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?")))
SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
DEFAULT_ALIGNMENT = 32


def read_gguf(path: Path) -> tuple[Settings, dict[str, Tensor]]:
    """The metadata as plain Python values and the tensors under the file's own names."""
    if path.stat().st_size < len(b"GGUF"):
        raise TruncatedFile(f"{path} is too short for a GGUF file")
    data: NDArray[np.uint8] = np.memmap(path, mode="r")
    try:
        fields, tensors = _Parser(data).parse()
    except (struct.error, TruncatedFile) as error:
        raise TruncatedFile(f"{path} is cut off or damaged: {error}") from error
    return Settings(path, fields), tensors


class _Parser:
    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data
        self.view = memoryview(data)  # type: ignore[arg-type]
        self.offset = 0

    def parse(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self.data[:4].tobytes() != b"GGUF":
            raise TruncatedFile("it does not start with the letters GGUF")
        self.offset = 4
        version = self.scalar("<I")
        if version not in (2, 3):
            raise UnsupportedArchitecture(f"version {version} of GGUF, or big-endian (known: 2, 3)")
        num_tensors, num_fields = self.scalar("<Q"), self.scalar("<Q")
        fields = {self.string(): self.value(self.scalar("<I")) for _ in range(num_fields)}
        entries = [self.tensor_entry() for _ in range(num_tensors)]
        alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
        start = -(-self.offset // alignment) * alignment
        tensors = (self.tensor(start, *entry) for entry in entries)
        return fields, {tensor.name: tensor for tensor in tensors}

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.view, self.offset)
        self.offset += struct.calcsize(form)
        return value

    def take(self, size: int) -> memoryview:
        end = self.offset + size
        if end > len(self.view):
            raise TruncatedFile(f"its header ends at byte {end:,} of {len(self.view):,}")
        piece = self.view[self.offset : end]
        self.offset = end
        return piece

    def string(self) -> str:
        return str(self.take(self.scalar("<Q")), "utf-8", "replace")

    def value(self, type_: int) -> Any:
        if type_ == STRING:
            return self.string()
        if type_ == ARRAY:
            item, length = self.scalar("<I"), self.scalar("<Q")
            if item in SCALARS:
                form = f"<{length}{SCALARS[item][1]}"
                return list(struct.unpack(form, self.take(struct.calcsize(form))))
            return [self.value(item) for _ in range(length)]
        if type_ not in SCALARS:
            raise TruncatedFile(f"its header names a value of type {type_}")
        return self.scalar(SCALARS[type_])

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (outermost first), number format and offset among the tensors."""
        name, num_dims = self.string(), self.scalar("<I")
        shape = tuple(reversed([self.scalar("<Q") for _ in range(num_dims)]))
        return name, shape, self.scalar("<I"), self.scalar("<Q")

    def tensor(self, start: int, name: str, shape: tuple[int, ...], type_: int, at: int) -> Tensor:
        try:
            format_ = GGMLQuantizationType(type_)
        except ValueError as error:
            raise UnsupportedArchitecture(
                f"{name} has the unknown number format {type_}"
            ) from error
        block, block_bytes = GGML_QUANT_SIZES[format_]
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if columns % block:
            raise WrongShape(
                f"{name} has {columns} columns, {format_.name} needs blocks of {block}"
            )
        row_bytes = columns // block * block_bytes
        begin, end = start + at, start + at + rows * row_bytes
        if end > len(self.data):
            raise TruncatedFile(f"{name} ends at byte {end:,} of {len(self.data):,}")
        return Tensor(name, shape, format_.name, self.data[begin:end].reshape(rows, row_bytes))
