"""What one model server serves, and one request to it on its way through a route."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import tokenizers
from msgspec import Struct

from model.engine.config import EngineConfig
from model.engine.grammar import Grammars
from model.network.minilm import MiniLM
from model.protocol.shapes import Json, read_shape
from model.protocol.templates import Renderer
from model.server.errors import NotFound
from model.server.metrics import Metrics
from model.server.parameters import ignored_fields
from model.server.worker import Worker
from model.tokenizer import Tokenizer

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True)
class Served:
    """One chat model, perhaps one embedder, and the thread that computes both."""

    name: str
    tokenizer: Tokenizer
    chat_template: str | None
    sampling: Mapping[str, Any]
    config: EngineConfig
    worker: Worker
    renderer: Renderer
    grammars: Grammars
    metrics: Metrics
    created: int
    embedder_name: str | None = None
    embedder: MiniLM | None = None
    is_strict: bool = False

    @cached_property
    def embedder_tokenizer(self) -> Tokenizer:
        """The embedder's, without its truncation: what is cut must be known."""
        assert self.embedder is not None  # noqa: S101
        tokenizer = self.embedder.tokenizer
        assert isinstance(tokenizer, Tokenizer)  # noqa: S101
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
        backend.no_truncation()
        return Tokenizer(backend)

    @cached_property
    def special_texts(self) -> re.Pattern[str]:
        """Matches text that the tokenizer would read as a control token."""
        texts = [self.tokenizer.token_text(i) for i in sorted(self.tokenizer.special_ids)]
        return re.compile("|".join(map(re.escape, texts)) or r"(?!)")

    def close(self) -> None:
        """End the thread, after its current step, and the renderer's process."""
        self.worker.close()
        self.renderer.close()

    def check_model(self, name: str) -> None:
        """Raises NotFound unless `name` is the chat model."""
        if name != self.name:
            raise no_such_model(name)


@dataclass
class Call:
    """One request: its body, its id, and the names of the fields that nobody knows."""

    served: Served
    body: Json
    id: str
    path: Mapping[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def read(self, shape: type[T]) -> T:
        """The body as `shape`; what the shape lacks is refused or noted."""
        request = read_shape(self.body, shape)
        self.ignored = ignored_fields(self.body, shape, self.served.is_strict)
        return request


def no_such_model(name: str) -> NotFound:
    return NotFound(f"The model '{name[:100]}' does not exist", "model", "model_not_found")
