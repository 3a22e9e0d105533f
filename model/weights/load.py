"""From a name or a path to a model in memory."""

from pathlib import Path

from model.network.minilm import MiniLM
from model.weights import tiny
from model.weights.checkpoint import Checkpoint
from model.weights.errors import UnknownModel


def llama(name: str, home: Path | None) -> Checkpoint:
    """See `model.weights.load_llama`."""
    if name == tiny.NAME:
        return tiny.tiny_llama()
    raise UnknownModel(name)


def minilm(name: str, home: Path | None) -> MiniLM:
    """See `model.weights.load_minilm`."""
    if name == tiny.NAME:
        return tiny.tiny_minilm()
    raise UnknownModel(name)
