"""A low-rank adapter in a folder as PEFT writes it: adapter_config.json, adapter_model.safetensors.

Its rows are in Hugging Face's order, and so are those of every network here, also of one that came
from a GGUF (`gguf_file` puts them back): nothing has to be permuted.
"""

from pathlib import Path

from model.network.config import NetworkConfig
from model.network.lora import Adapter
from model.weights.errors import MissingTensor, UnsupportedArchitecture
from model.weights.safetensors_file import read_safetensors
from model.weights.settings import Settings


def load_adapter(folder: Path, config: NetworkConfig) -> Adapter:
    """The adapter for a network of these sizes; WeightsError if it is damaged or does not fit."""
    settings = Settings.read(folder / "adapter_config.json")
    settings.require({"peft_type": "LORA"})
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise MissingTensor(f"{folder} has no {path.name}")
    tensors = {name: tensor.dequantize() for name, tensor in read_safetensors(path).items()}
    if not tensors:
        raise MissingTensor(f"{path} changes nothing")
    try:
        return Adapter.from_peft(config, settings, tensors)
    except ValueError as error:
        raise UnsupportedArchitecture(f"{folder}: {error}") from error
