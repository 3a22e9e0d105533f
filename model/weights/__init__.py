"""Weights: what can be pulled, and the files they come in.

`load_llama` and `load_minilm` are all that the server needs; `pull` and `catalogue` say where the
files come from. The loaders are imported on use: `pull` and `models` need no network to start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.network.minilm import MiniLM
    from model.weights.checkpoint import Checkpoint


def load_llama(name: str, home: Path | None = None) -> Checkpoint:
    """The chat model under a name of the catalogue or at a path (a GGUF, a Hugging Face folder).

    Raises WeightsError, whose tree is in `errors`.
    """
    from model.weights import load

    return load.llama(name, home)


def load_minilm(name: str, home: Path | None = None) -> MiniLM:
    """The sentence encoder under a name of the catalogue or in a Hugging Face folder."""
    from model.weights import load

    return load.minilm(name, home)
