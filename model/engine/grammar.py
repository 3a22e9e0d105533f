"""Answers that must follow a grammar: compiled once, then asked before every token.

Knows how a JSON schema, a regular expression, a choice or a Lark grammar becomes a mask over the
vocabulary, by way of llguidance. Leaves out what a caller's request for one looks like.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import llguidance
import numpy as np
from numpy.typing import NDArray

from model.engine.errors import InvalidGrammar
from model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Kind = Literal["json_object", "json_schema", "regex", "choice", "lark"]
MAX_SOURCE = 65_536  # characters of one grammar
MAX_CACHED = 128
# One space at most between the parts of a JSON text: a small model left free there may go on
# with blanks until its tokens end
JSON_STYLE: JsonCompileOptions = {"whitespace_pattern": " ?"}


class Matcher:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens [V] may come next; the tokens that end an answer among them."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._raise_error()
        return np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)

    def accept(self, token_id: int) -> bool:
        """Take a token; True if nothing can follow it."""
        self._matcher.consume_token(token_id)
        self._raise_error()
        return self._matcher.is_stopped()

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            raise InvalidGrammar(self._matcher.get_error(), "grammar")


class Grammar:
    """A compiled grammar; each answer under it takes a matcher of its own."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._start = matcher
        self._vocab_size = vocab_size

    def matcher(self) -> Matcher:
        return Matcher(self._start.deep_copy(), self._vocab_size)


class Grammars:
    """Compiles for one vocabulary, and remembers. Safe to share between threads.

    Compiling may take as long as many steps, so it does not belong in the engine's thread.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self.compile = lru_cache(MAX_CACHED)(self._compile)

    def _compile(self, kind: Kind, source: str = "") -> Grammar:
        """The grammar of `source`: a JSON schema, an expression, a JSON list of strings, Lark.

        Raises InvalidGrammar for what is too long, malformed, or asks for what is not supported.
        """
        if len(source) > MAX_SOURCE:
            raise InvalidGrammar(f"{len(source)} characters; {MAX_SOURCE} are allowed", kind)
        try:
            grammar = _translate(kind, source)
        except (ValueError, RecursionError) as error:
            raise InvalidGrammar(str(error), kind) from error
        limits = llguidance.LLParserLimits(verbose_errors=False)
        matcher = llguidance.LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some errors show only when the first token is asked for
        if matcher.is_error():
            raise InvalidGrammar(matcher.get_error().strip(), kind)
        return Grammar(matcher, self._tokenizer.vocab_size)

    @cached_property
    def _vocabulary(self) -> llguidance.LLTokenizer:
        """Taken from the bytes of the tokens, whatever kind of tokenizer they belong to."""
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(self._tokenizer, self._stop_ids))
        return llguidance.LLTokenizer(wrapper, eos_token=self._stop_ids)


class _Vocabulary:
    """A tokenizer as llguidance wants to see it."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = stop_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8"), allow_special=False)


def _translate(kind: Kind, source: str) -> str:
    """`source` in llguidance's own form; ValueError if it is not even JSON where it must be."""
    if kind in ("json_object", "json_schema"):
        schema = {"type": "object"} if kind == "json_object" else json.loads(source)
        if not isinstance(schema, dict):
            raise ValueError("a schema is a JSON object")
        return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE)
    if kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(source)
    if kind == "choice":
        choices = json.loads(source)
        if not isinstance(choices, list) or not choices or not all(map(_is_text, choices)):
            raise ValueError("a choice is a list of texts, none of them empty")
        source = "start: " + " | ".join(json.dumps(choice) for choice in choices)
    form: Literal["grammar", "lark"] = "grammar" if "::=" in source else "lark"  # vLLM's is EBNF
    return llguidance.grammar_from(form, source)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
