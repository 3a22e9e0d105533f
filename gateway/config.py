"""What an operator may write down: the sections of gateway.toml as frozen structs.

Every default of the gateway is in this file and nowhere else; `config_file` reads the file. Labels,
weights and keys written here only seed rows that the store does not have: what moves is owned by
the store.
"""

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, dataclass_transform

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


NO_SAMPLING = frozenset(
    {"model", "messages", "prompt", "stream", "n", "max_tokens", "max_completion_tokens"}
)


class Secret:
    """A value that may be sent but never shown: it prints as stars and needs `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    __hash__ = None  # type: ignore[assignment]


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown keys are refused."""


class Server(Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    allowed_hosts: tuple[str, ...] = ()  # none: loopback names on loopback, any elsewhere
    cors_origins: tuple[str, ...] = ()  # none: no CORS headers at all; "*" is any origin
    trusted_proxies: tuple[str, ...] = ()  # addresses whose x-forwarded-for is believed
    max_body_bytes: Positive = 8_000_000
    max_header_bytes: Positive = 32_768  # all headers and the URL together
    max_headers: Positive = 100
    header_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 30.0
    write_timeout_s: Seconds = 30.0  # how long a client may leave our bytes unread
    idle_timeout_s: Annotated[float, Meta(ge=1)] = 75.0  # a kept connection without a request
    first_event_s: Seconds = 10.0  # how long status and headers wait for the first event
    heartbeat_s: Seconds = 10.0
    drain_delay_s: float = 0.0  # time to leave a load balancer before new requests are refused
    drain_s: float = 30.0  # for streams to finish; 0: they are cut at once
    max_in_flight: Positive = 1024
    limits: str = ""  # the limit class that holds for everybody together
    key_limits: str = ""  # the limit class of a key that names none


class Local(Section):
    """The model server that `glassgate serve` starts and watches."""

    model: str = "smollm2"  # a name of the catalogue, a GGUF file or a folder
    embedder: str = "minilm"
    port: Port = 8081
    threads: int = 0  # 0: the model server decides
    strict: bool = False  # refuse request fields that it does not know
    profile: str = ""  # of a machine to emulate: then no weights are loaded
    loras: dict[str, str] = {}  # adapters of the chat model: name → PEFT folder
    ready_s: Seconds = 120.0
    backoff_s: Seconds = 0.25  # before the first restart; doubles up to backoff_max_s
    backoff_max_s: Seconds = 10.0


def served_name(model: str) -> str:
    """What the model server calls a model: one at a path by the path's last part."""
    return Path(model).stem if "/" in model else model


class Deadlines(Section):
    """Seconds, per attempt. `total` also bounds an answer that is not streamed."""

    connect: Seconds = 3.0
    headers: Seconds = 10.0
    first_token: Seconds = 10.0
    idle: Seconds = 15.0
    total: Seconds = 600.0


class Price(Section, cache_hash=True):
    """US dollars per million tokens, valid from a day on."""

    since: datetime.date = datetime.date(1970, 1, 1)
    prompt: Decimal = Decimal(0)
    cached: Decimal | None = None  # none: as `prompt`
    completion: Decimal = Decimal(0)


class Upstream(Section):
    """Somebody who speaks OpenAI's protocol. `local` = our own model server, else `base_url`."""

    local: Literal["", "model", "embedder"] = ""
    base_url: str | tuple[str, ...] = ()  # several: replicas of one model, up to and with /v1
    model: str = ""  # what the upstream calls it; empty: the local model's name
    api_key_env: str = ""
    api_key_file: str = ""
    headers: dict[str, Secret] = {}
    ca_file: str = ""
    tokenizer: str = ""  # path of a tokenizer.json, to count with; none: bytes, marked estimated
    can_continue: bool = False  # continues a last assistant message
    context_length: int = 0  # tokens of prompt and answer together; 0: not known
    image_tokens: int = 2_000  # that an image counts before it was read; 0: its bytes
    deadlines: Deadlines = Deadlines()
    prices: tuple[Price, ...] = ()  # none: free


class Cache(Section):
    """Of complete answers. Exact ones are kept for requests that would be answered the same."""

    ttl_s: float = 600.0  # 0: nothing is kept
    sampled: bool = False  # also answers of a temperature without a seed
    semantic: bool = False  # also of the same question in other words
    threshold: Share = 0.92  # the cosine that takes: false in 1 of 100 at most (make bench-cache)


class AnswerCache(Section):
    max_bytes: int = 64 << 20  # in memory, 0: none; Redis, where there is one, has its own bound
    redis_url: str = ""  # one that may evict, as the limits' must not; none: the same as theirs


class Release(Section):
    """Immutable: a changed release needs a new name."""

    family: str
    upstream: str
    prompt: str = ""
    index: str = ""
    sampling: dict[str, Any] = {}  # defaults for what the client leaves out, but NO_SAMPLING
    context_budget: int = 0  # tokens of retrieved passages
    default_max_tokens: int = 512  # for who asks for none; 0: none is sent, and none reserved
    cache: Cache = Cache()
    deprecated: datetime.date | None = None
    shutdown_date: datetime.date | None = None
    replaced_by: str = ""


class Rule(Section):
    """Cost routing: the first rule whose conditions all hold picks `use`, a label or release."""

    use: str
    prompt_below: int | None = None  # tokens of the client's text
    prompt_above: int | None = None
    hint: str | None = None  # what the client says in x-glassgate-hint


class Family(Section):
    """What clients put in `model`."""

    labels: dict[str, str] = {}  # seeds: label → release
    weights: dict[str, float] = {}  # seeds: label → share of the traffic; none: all to production
    sticky: bool = True  # one user or session stays on one release
    rules: tuple[Rule, ...] = ()
    fallbacks: tuple[str, ...] = ()  # upstreams, in order
    context_fallback: str = ""  # the upstream for prompts too long for the release's own
    stream_recovery: Literal["error", "continue", "hold"] = "error"
    limits: str = ""
    queue: int = 0  # requests that may wait for admission instead of a 429
    queue_s: float = 0.0  # how long; 0: not at all


class Limits(Section):
    """A limit class. 0 = without that limit; costs in US dollars."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent: int = 0
    cost_per_day: Decimal = Decimal(0)
    cost_per_month: Decimal = Decimal(0)
    silent: Literal["open", "closed"] = "open"  # when Redis does not answer; costs: always closed


class Key(Section):
    """A client's key: its sha256, or the variable that holds it."""

    sha256: str = ""
    env: str = ""
    team: str = ""
    families: tuple[str, ...] = ()  # none: all
    scopes: tuple[str, ...] = ("infer",)
    limits: str = ""


class Store(Section):
    url: str = "sqlite:///var/glassgate.db"
    journal: str = "var/journal"
    retention_days: Positive = 90  # single ledger rows; daily sums are kept


class Redis(Section):
    url: str = ""  # none: limits in process
    timeout_ms: Annotated[float, Meta(gt=0)] = 20.0
    gateways: Positive = 1  # how many share it: what each may grant alone while Redis is silent


class Prompts(Section):
    folder: str = "prompts"  # of prompt versions, beside this file; none: no prompts


class Retries(Section):
    per_target: int = 2  # again at the same upstream; 0: never
    attempts: Positive = 6  # in all
    backoff_s: float = 0.25
    backoff_max_s: float = 4.0
    max_wait_s: float = 5.0  # for an upstream that wants it; a longer wait is the client's choice


class BreakerPolicy(Section):
    """When a replica of an upstream is asked no more, and how soon it is tried again."""

    window_s: Seconds = 30.0
    min_failures: Positive = 5  # within the window, and with them …
    error_rate: Share = 0.5  # … this share of all attempts in it
    failures_in_a_row: Positive = 10  # a window full of success must not hide that it is over
    silences: Positive = 3  # timeouts with no success between
    cooldown_s: Seconds = 1.0  # before the first probe; doubles up to cooldown_max_s
    cooldown_max_s: Seconds = 10.0


class Retrieval(Section):
    """Vector stores, those of clients too. A store keeps the embedder that it began with."""

    embedder: str = ""  # the family that embeds; empty: stores are searched by words alone
    max_files: int = 10_000  # of one tenant; 0: nobody uploads
    max_bytes: int = 1 << 30  # of one tenant's files together; 0: nobody uploads


class Index(Section):
    """What a release that names it knows: a vector store, and how it is searched."""

    store: str  # a name or id, or name@N for its snapshot N; the gateway's own, or `tenant`'s
    tenant: str = ""  # "team:NAME" or "key:ID"
    corpus: str = ""  # ingested at the start of `glassgate serve`: pydoc:topics, or a path
    fusion: Literal["rrf", "min-max"] = "min-max"
    top_k: Positive = 6  # passages, at most
    threshold: Fraction = 0.0  # the cosine below which a passage is not relevant; 0: all are
    order: Literal["best_first", "best_last"] = "best_first"  # by make bench-rag
    rerank: str = ""  # the family whose likelihood of the question orders the passages anew
    on_nothing: Literal["answer", "say", "refuse"] = "say"  # when no passage is relevant


class Metrics(Section):
    tenants: tuple[str, ...] = ()  # "team:NAME" or "key:ID", told by name; the rest are `other`


class Traces(Section):
    """Of requests: where their time went. Those that fail here are kept, whatever `sample` says."""

    sample: Fraction = 0.01  # kept, where the caller does not say
    keep_hours: Annotated[float, Meta(gt=0)] = 24.0
    max_rows: Positive = 100_000
    prompts: bool = False  # keep what was asked, too
    otlp: str = ""  # also send them there, such as http://127.0.0.1:4318/v1/traces
    otlp_headers: dict[str, Secret] = {}


class Config(Section):
    server: Server = Server()
    local: Local | None = None  # without the section no model server is started
    upstreams: dict[str, Upstream] = {}
    releases: dict[str, Release] = {}
    families: dict[str, Family] = {}
    limits: dict[str, Limits] = {}
    keys: dict[str, Key] = {}
    prompts: Prompts = Prompts()
    retries: Retries = Retries()
    breaker: BreakerPolicy = BreakerPolicy()
    store: Store = Store()
    redis: Redis = Redis()
    answer_cache: AnswerCache = AnswerCache()
    retrieval: Retrieval = Retrieval()
    indexes: dict[str, Index] = {}
    metrics: Metrics = Metrics()
    traces: Traces = Traces()
