"""The door of the engine: is this request possible at all, and what does it look like inside?

Knows the vocabulary and the sizes that nothing may exceed. Leaves out how busy the engine is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from model.engine.config import EngineConfig
from model.engine.errors import InvalidRequest, TooLong
from model.engine.kv_cache import root_hash
from model.engine.ngram import NgramIndex
from model.engine.sequence import Request, Sequence
from model.engine.text import TextStream
from model.tokenizer import Tokenizer


class Intake:
    """Turns requests into sequences."""

    def __init__(self, tokenizer: Tokenizer, config: EngineConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._seeds = np.random.default_rng(config.seed)  # of requests that bring none

    def open(self, request: Request, now: float) -> list[Sequence]:
        """One sequence per copy. Raises InvalidRequest for what could never be served."""
        self._check(request)
        params, bad_words = request.params, self._bad_words(request.params.bad_words)
        longest = self._config.max_model_len
        if params.max_tokens is not None:
            longest = len(request.prompt_ids) + params.max_tokens
        seed = int(self._seeds.integers(2**63)) if params.seed is None else params.seed % 2**64
        return [
            Sequence(
                request=request,
                index=index,
                text=TextStream(
                    self._tokenizer, params.stop, params.include_stop, params.skip_special_tokens
                ),
                eos_ids=frozenset() if params.ignore_eos else self._config.stop_ids,
                max_num_tokens=longest,
                arrived=now,
                bad_words=bad_words,
                # the copy's own stream of numbers, whatever else runs beside it
                rng=None if params.is_greedy else np.random.default_rng([seed, index]),
                matcher=None if request.grammar is None else request.grammar.matcher(),
                ngrams=NgramIndex() if self._config.num_draft_tokens else None,
                block_hashes=[root_hash(request.adapter, request.cache_salt)],
            )
            for index in range(params.n)
        ]

    def _check(self, request: Request) -> None:
        params, longest = request.params, self._config.max_model_len
        length = len(request.prompt_ids)
        if length == 0:
            raise InvalidRequest("the prompt has no tokens", "prompt_ids")
        wanted = 1 if params.max_tokens is None else params.max_tokens
        if length + min(wanted, 1) > longest:
            raise TooLong(
                f"the prompt has {length} tokens; prompt and answer may have {longest}",
                "prompt_ids",
            )
        if length + wanted > longest:
            raise TooLong(
                f"the prompt's {length} tokens and max_tokens {wanted} make {length + wanted};"
                f" prompt and answer may have {longest}",
                "max_tokens",
            )
        if not self._config.samples:
            self._check_unsampled(request)
        self._check_vocabulary(request.prompt_ids, "prompt_ids")
        self._check_vocabulary(params.logit_bias, "logit_bias")
        self._check_vocabulary(params.stop_token_ids, "stop_token_ids")
        self._check_vocabulary(params.allowed_token_ids or (), "allowed_token_ids")

    def _check_vocabulary(self, token_ids: Iterable[int], param: str) -> None:
        size = self._tokenizer.vocab_size
        lowest, highest = min(token_ids, default=0), max(token_ids, default=0)
        if lowest < 0 or highest >= size:
            wrong = lowest if lowest < 0 else highest
            raise InvalidRequest(f"token {wrong} is not in the vocabulary of {size}", param)

    def _check_unsampled(self, request: Request) -> None:
        """Refuse what only logits can answer. How to draw (temperature, seed) asks nothing."""
        params = request.params
        for name, value in (
            ("logprobs", params.logprobs is not None),
            ("prompt_logprobs", params.prompt_logprobs is not None),
            ("logit_bias", params.logit_bias),
            ("allowed_token_ids", params.allowed_token_ids),
            ("bad_words", params.bad_words),
            ("grammar", request.grammar),
        ):
            if value:
                raise InvalidRequest(f"{name} needs logits, and this model has none", name)

    def _bad_words(self, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Each word as it is tokenised at the start of a text and after a space."""
        spellings = (form for word in words for form in (word.lstrip(), f" {word.lstrip()}"))
        return tuple({tuple(ids) for form in spellings if (ids := self._tokenizer.encode(form))})
