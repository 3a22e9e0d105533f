"""From a name or a path to a model in memory."""

from pathlib import Path

from model.weights import gguf_file, tiny
from model.weights.checkpoint import Checkpoint
from model.weights.errors import UnknownModel


def llama(name: str, home: Path | None) -> Checkpoint:
    """See `model.weights.load_llama`."""
    if name == tiny.NAME:
        return tiny.tiny_llama()
    if name.endswith(".gguf") and Path(name).is_file():
        return gguf_file.load(Path(name))
    raise UnknownModel(name)
