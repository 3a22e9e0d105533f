"""The container format safetensors: tensors as views of the mapped file.

Knows the format (a length, a JSON header, bytes) in one file or in shards with an index. It is read
here rather than by its package because numpy has no bfloat16 and the networks take raw codes.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.network.tensor import UNPACKED, Tensor
from model.weights.errors import MissingTensor, TruncatedFile, UnsupportedArchitecture

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of `folder` under the files' own names."""
    if (folder / INDEX).is_file():
        shards = sorted({*json.loads((folder / INDEX).read_bytes())["weight_map"].values()})
    else:
        shards = [WHOLE]
    found: dict[str, Tensor] = {}
    for shard in shards:
        if not (folder / shard).is_file():
            raise MissingTensor(f"{folder} has no {shard}")
        found |= read_safetensors(folder / shard)
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file."""
    if path.stat().st_size < 8:
        raise TruncatedFile(f"{path} is too short for a safetensors file")
    data: NDArray[np.uint8] = np.memmap(path, mode="r")
    start = 8 + int(data[:8].view("<u8")[0])
    try:
        header: dict[str, dict[str, Any]] = json.loads(data[8:start].tobytes())
    except ValueError as error:
        raise TruncatedFile(f"{path} is cut off or damaged: its header is no JSON") from error
    header.pop("__metadata__", None)
    return {name: _tensor(path, data[start:], name, entry) for name, entry in header.items()}


def _tensor(path: Path, data: NDArray[np.uint8], name: str, entry: dict[str, Any]) -> Tensor:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if entry["dtype"] not in {*UNPACKED, "I64"}:  # I64: position ids that some files carry along
        raise UnsupportedArchitecture(f"{path}: {name} has the number format {entry['dtype']}")
    if end > len(data):
        raise TruncatedFile(f"{path} is cut off: {name} ends at byte {end:,} of {len(data):,}")
    raw = data[begin:end].reshape(math.prod(shape[:-1]), -1)
    return Tensor(name, shape, entry["dtype"], raw)
