"""From a name or a path to a model in memory."""

from dataclasses import replace
from pathlib import Path

from model.network.minilm import MiniLM
from model.weights import tiny
from model.weights.catalogue import CATALOGUE
from model.weights.checkpoint import Checkpoint
from model.weights.errors import UnknownModel, UnsupportedArchitecture
from model.weights.gguf_file import load_gguf
from model.weights.hf_folder import load_encoder_folder, load_llama_folder
from model.weights.pull import pulled

SHIPPED = Path(__file__).parents[2] / "ops" / "tiny"  # `glassgate train tiny` made it


def llama(name: str, home: Path | None) -> Checkpoint:
    """See `model.weights.load_llama`."""
    if name == tiny.NAME:
        return tiny.tiny_llama()
    path = _locate(name, "chat", home)
    if path.is_dir() and not (path / "config.json").is_file():
        path = next(iter(sorted(path.glob("*.gguf"))), path)
    try:
        checkpoint = load_llama_folder(path) if path.is_dir() else load_gguf(path)
    except ValueError as error:  # a tokenizer or sizes that this stack cannot run
        raise UnsupportedArchitecture(f"{path}: {error}") from error
    if name in CATALOGUE:
        return replace(checkpoint, name=name, sampling=CATALOGUE[name].sampling)
    return checkpoint


def minilm(name: str, home: Path | None) -> MiniLM:
    """See `model.weights.load_minilm`."""
    if name == tiny.NAME:
        return tiny.tiny_minilm()
    return load_encoder_folder(_locate(name, "embedding", home))


def _locate(name: str, kind: str, home: Path | None) -> Path:
    """The shipped folder, that of a name in the catalogue, else the path itself."""
    if (name, kind) == (SHIPPED.name, "chat"):
        return SHIPPED
    known = [entry.name for entry in CATALOGUE.values() if entry.kind == kind]
    if name in known:
        return pulled(CATALOGUE[name], home)
    if Path(name).exists() and name not in CATALOGUE:
        return Path(name)
    raise UnknownModel(f"{name!r} is no {kind} model (known: {', '.join(known)}) and no path")
