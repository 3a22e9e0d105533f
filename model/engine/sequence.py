"""A request, the rules for its answer, and one running copy of it.

Knows when an answer ends. Leaves out where its blocks come from (`scheduler`) and how its next
token is chosen (`sampler`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

from model.engine.errors import InvalidRequest
from model.engine.grammar import Grammar, Matcher
from model.engine.logprobs import TokenLogprobs
from model.engine.ngram import NgramIndex
from model.engine.text import TextStream

FinishReason = Literal["stop", "length", "abort", "error"]
MAX_LOGPROBS = 20
# entries of what is gone through for every token
MAX_ENTRIES = {"stop": 16, "stop_token_ids": 256, "bad_words": 256, "logit_bias": 1024}
MAX_STOP = 256  # characters
GREEDY_BELOW = 1e-5  # a smaller temperature is zero, as in vLLM


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is chosen and where it ends; names and meaning as in vLLM.

    Raises InvalidRequest for a value outside its range.
    """

    max_tokens: int | None = None  # None: whatever the context leaves; 0: only score the prompt
    min_tokens: int = 0
    n: int = 1
    seed: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0 or -1: all
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None  # how many alternatives beside the chosen token
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        limit = np.inf
        for name, low, high in (
            ("max_tokens", 0, limit),
            ("min_tokens", 0, limit if self.max_tokens is None else self.max_tokens),
            ("n", 1, 128),
            ("temperature", 0, 1e6),
            ("top_p", 1e-9, 1),
            ("top_k", -1, limit),
            ("min_p", 0, 1),
            ("repetition_penalty", 1e-6, 1e6),
            ("presence_penalty", -2, 2),
            ("frequency_penalty", -2, 2),
            ("logprobs", 0, MAX_LOGPROBS),
            ("prompt_logprobs", 0, MAX_LOGPROBS),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidRequest(f"{name} is {value}, not in [{low}, {high}]", name)
        if not all(-100 <= bias <= 100 for bias in self.logit_bias.values()):
            raise InvalidRequest("a logit bias is not in [-100, 100]", "logit_bias")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise InvalidRequest("allowed_token_ids allows nothing", "allowed_token_ids")
        if not all(0 < len(stop) <= MAX_STOP for stop in self.stop):
            raise InvalidRequest(f"a stop string has 1 to {MAX_STOP} characters", "stop")
        for name, most in MAX_ENTRIES.items():
            if len(getattr(self, name)) > most:
                raise InvalidRequest(f"{name} has more than {most} entries", name)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        neutral = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return neutral != (1.0, 0.0, 0.0)

    @property
    def is_plain(self) -> bool:
        """Whether the highest raw logit is the answer, so that no row must be rewritten."""
        rules = self.logit_bias or self.allowed_token_ids or self.bad_words or self.min_tokens
        return self.is_greedy and not rules and not self.has_penalties


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`params.n` answers to one prompt. Blocks are shared only within an adapter and a salt.

    A `grammar` is compiled before, by `Grammars.compile`.
    """

    id: str
    prompt_ids: list[int]
    params: SamplingParams
    grammar: Grammar | None = None
    cache_salt: str = ""
    adapter: str | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """One copy of a request: its tokens, its blocks, and how far they are computed.

    Tokens whose keys and values are in the cache are `token_ids[:num_computed_tokens]`; the engine
    lets that number catch up with `num_tokens`, and there is no other notion of progress.
    """

    request: Request
    index: int
    text: TextStream
    eos_ids: frozenset[int]
    max_num_tokens: int  # prompt and answer
    arrived: float
    bad_words: tuple[tuple[int, ...], ...] = ()
    rng: np.random.Generator | None = None  # None: greedy
    matcher: Matcher | None = None
    ngrams: NgramIndex | None = None  # None: no guessing
    siblings: list[Sequence] = field(default_factory=list)  # wait for this one's prompt blocks

    token_ids: list[int] = field(init=False)
    num_prompt_tokens: int = field(init=False)
    is_plain: bool = field(init=False)
    draft: list[int] = field(default_factory=list)  # guesses at what follows token_ids
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0  # prompt tokens that the first admission found in the cache
    block_table: array[int] = field(default_factory=lambda: array("i"))
    block_hashes: list[bytes] = field(default_factory=list)  # the salt's, then one per full block
    num_shared_blocks: int = 0  # of block_table, from the left: registered under their hash
    script: list[int] = field(default_factory=list)  # what an emulated network is going to say
    counts: Counter[int] | None = None  # of output tokens; kept only for penalties
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    admitted: float | None = None
    first_token: float | None = None
    last_token: float = 0.0

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.prompt_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.is_plain = self.params.is_plain and self.matcher is None
        if self.params.has_penalties:
            self.counts = Counter()

    @property
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_pending_tokens(self) -> int:
        """Tokens still to be computed before the next can be sampled, guesses included."""
        return len(self.token_ids) + len(self.draft) - self.num_computed_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether logits of prompt positions are still wanted."""
        wanted = self.params.prompt_logprobs is not None and self.index == 0
        return wanted and len(self.prompt_logprobs) < self.num_prompt_tokens

    @property
    def may_stop(self) -> bool:
        """Whether one more token may be the last by its meaning."""
        return self.num_output_tokens >= self.params.min_tokens

    def accept(self, token_id: int) -> str:
        """Append a sampled token; the text that it makes certain. Ends the answer if it must."""
        may_stop = self.may_stop
        self.token_ids.append(token_id)
        if self.counts is not None:
            self.counts[token_id] += 1
        is_complete = self.matcher is not None and self.matcher.accept(token_id)
        is_eos = token_id in self.eos_ids
        if may_stop and (is_eos or token_id in self.params.stop_token_ids):
            self.finish("stop", None if is_eos else token_id)
            shown = self.text.push(token_id, False) if self.params.include_stop else ""
            return shown + self.text.flush()
        text = self.text.push(token_id, may_stop)
        if self.text.stopped_by is not None:
            self.finish("stop", self.text.stopped_by)
        elif is_complete or len(self.token_ids) >= self.max_num_tokens:
            self.finish("stop" if is_complete else "length")
            text += self.text.flush()
        return text

    def finish(self, reason: FinishReason, stop_reason: str | int | None = None) -> None:
        self.finish_reason, self.stop_reason = reason, stop_reason
