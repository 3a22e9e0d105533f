"""A chat model ready to run, and the step from named tensors to it.

Knows the canonical names of a llama's weights. Leaves out file formats: their readers hand over
tensors under these names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.network.config import NetworkConfig
from model.network.llama import Llama, shapes
from model.network.tensor import Tensor
from model.tokenizer import Tokenizer
from model.weights.errors import MissingTensor, UnsupportedArchitecture, WrongShape


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that a chat model's files say. `sampling` holds its authors' recommendation."""

    name: str
    network: Llama
    tokenizer: Tokenizer
    chat_template: str | None
    stop_ids: frozenset[int]
    sampling: Mapping[str, float] = field(default_factory=dict)


def build_llama(config: NetworkConfig, tensors: Mapping[str, Tensor]) -> Llama:
    """The network over `tensors`; each must be there, fit `config`, and none may be left over."""
    expected = shapes(config)
    check_shapes(expected, tensors)
    if extra := sorted(tensors.keys() - expected.keys()):
        raise UnsupportedArchitecture(f"a llama has no weight {extra[0]} ({len(extra)} unknown)")
    return Llama.from_tensors(config, tensors)


def check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of which one is absent or has another shape than the sizes ask for."""
    for name, shape in expected.items():
        if name not in tensors:
            raise MissingTensor(f"the weight {name} is missing")
        if tensors[name].shape != shape:
            raise WrongShape(f"{name} has shape {tensors[name].shape}, the sizes ask for {shape}")
