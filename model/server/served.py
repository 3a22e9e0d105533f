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
from model.server.adapters import Adapters
from model.server.errors import BadRequest, NotFound
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
    adapters: Adapters
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

    @property
    def names(self) -> list[str]:
        """Of everything that is served."""
        return [self.name, *filter(None, [self.embedder_name]), *self.adapters.paths]

    @property
    def in_use(self) -> frozenset[str]:
        """The adapters of requests that are running or waiting; for the engine's thread."""
        return self.worker.engine.adapters

    def adapter_of(self, name: str) -> str | None:
        """The adapter that `name` is, or None for the chat model itself; else raises NotFound."""
        if name == self.name:
            return None
        if name == self.embedder_name:
            raise BadRequest(
                f"'{name}' makes embeddings, it writes no text", "model", "wrong_model"
            )
        if name not in self.adapters.paths:
            raise no_such_model(name)
        return name


@dataclass
class Call:
    """One request: its body, its id, and the names of the fields that nobody knows."""

    served: Served
    body: Json
    id: str
    path: Mapping[str, str] = field(default_factory=dict)
    key: str = ""  # the caller's, who needs one for very little
    ignored: list[str] = field(default_factory=list)

    def read(self, shape: type[T]) -> T:
        """The body as `shape`; what the shape lacks is refused or noted."""
        request = read_shape(self.body, shape)
        self.ignored = ignored_fields(self.body, shape, self.served.is_strict)
        return request


def no_such_model(name: str, param: str = "model") -> NotFound:
    return NotFound(f"The model '{name[:100]}' does not exist", param, "model_not_found")
