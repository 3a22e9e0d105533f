"""Random tensors in every number format that a kernel knows, and llamas made of them."""

import ctypes
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.llama import Llama, shapes
from model.network.tensor import Tensor

TYPES = ("Q4_0", "Q4_1", "Q8_0", "F16", "BF16", "F32")


def tensor(values: NDArray[np.float32], type_name: str) -> Tensor:
    """The values in a format; they change by what the format cannot hold."""
    if values.ndim == 1:
        return Tensor.from_array("", values)
    raw = quants.quantize(values, GGMLQuantizationType[type_name])
    return Tensor("", values.shape, type_name, raw.view(np.uint8).reshape(len(values), -1))


def llama(config: NetworkConfig, seed: int, type_name: str = "F32") -> Llama:
    """A seeded llama with packed weights, so that it runs compiled."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for name, shape in shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        scaled = 1 + values / 10 if len(shape) == 1 else values / np.sqrt(shape[-1])
        tensors[name] = tensor(scaled.astype(np.float32), type_name)
    return Llama.from_tensors(config, tensors)


def call(address: int, *arguments: int) -> None:
    """Call machine code that takes integers."""
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(arguments))(address)(*arguments)
