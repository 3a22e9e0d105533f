"""The record of one request that the stages hand along.

A stage reads what earlier stages wrote and writes its own fields; the ledger row, the metrics and
the log line are made of what is here at the end. It holds data and decides nothing.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway.trace import Place, join

if TYPE_CHECKING:
    from gateway.prompt_file import Prompt
    from gateway.retrieval.citations import Verdict
    from gateway.retrieval.found import Context
    from gateway.routing.attempts import Attempt
    from gateway.upstream import Target

Route = Literal["chat", "responses", "completions", "embeddings"]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls. No families or routes = all of them."""

    key_id: str = ""
    team: str = ""
    scopes: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()
    limits: str = ""  # the key's limit class; empty = the server's

    @property
    def tenant(self) -> str:
        """Who shares what is kept: a team, or a key of its own; "" is who runs the gateway."""
        if self.team:
            return f"team:{self.team}"
        return f"key:{self.key_id}" if self.key_id else ""


class PromptRef(msgspec.Struct, forbid_unknown_fields=True):
    """A prompt that a request names, in the shape of OpenAI's stored ones."""

    id: str
    version: str | None = None
    label: str | None = None
    variables: dict[str, Any] | None = None


class Usage(msgspec.Struct):
    """Tokens of one call, and who says so; nobody where there are none."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    source: Literal["none", "upstream", "counted", "estimated"] = "none"


@dataclass(slots=True)
class Call:
    id: str
    route: Route
    body: dict[str, Any]  # in the form that upstreams take
    size: int  # bytes of the client's body: no tokenizer makes more tokens of them
    headers: dict[str, str]  # the client's, lower-case, the last of each name
    asked: dict[str, Any] = field(default_factory=dict)  # the body as it came
    client: str = ""  # address
    stream: bool = False
    wants_usage: bool = False  # the client asked for the usage event itself
    max_tokens: int | None = None  # what the client asks for
    num_choices: int = 1
    asked_prompt: PromptRef | None = None
    principal: Principal = field(default_factory=Principal)
    family: str = ""
    release: str = ""
    picked_by: str = ""  # rule, pin, sticky or weight
    prompt: "Prompt | None" = None
    variables: dict[str, Any] = field(default_factory=dict)  # the values of its inputs
    store: str = ""  # of the release's index, as id@snapshot; "" before the answer cache needs it
    context: "Context | None" = None  # what the release's index says to the question
    messages: list[dict[str, Any]] | None = None  # what the prompt makes of the client's
    prompt_tokens: int = 0  # an estimate, where a rule of the family asks for it
    bound_tokens: int = 0  # no tokenizer makes more of what is sent
    reply_headers: list[tuple[str, str]] = field(default_factory=list)
    attempts: "list[Attempt]" = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    verdicts: "list[Verdict]" = field(default_factory=list)  # of the answer's citations
    cache: str = ""  # hit, semantic, miss or bypass; "" before the cache was asked
    similarity: float | None = None  # of a semantic hit
    cost: int = 0  # nano-dollars; known at the end
    finish: str = ""  # finish_reason, as the upstream gave it
    outcome: str = "running"  # ok, client_gone, or the code of the error
    status: int = 0  # what the outcome is as a status of HTTP; known at the end
    trace: Place = field(default_factory=lambda: join("", 0.0))
    started: float = field(default_factory=time.monotonic)
    marks: list[tuple[str, float]] = field(default_factory=list)  # ends of stages, in order

    def mark(self, stage: str) -> None:
        """The stage is over; it began when the one before it was."""
        self.marks.append((stage, time.monotonic()))

    @property
    def target(self) -> "Target | None":
        """Who served, or was asked last."""
        return self.attempts[-1].target if self.attempts else None
