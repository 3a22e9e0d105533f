"""Text to token ids and back, over the `tokenizers` library.

Knows how to rebuild the tokenizer that a GGUF file describes, and how to stream text out of ids
without ever showing half a character. Leaves out chat templates and stop strings.

Ids decode through bytes: every token stands for a fixed byte string, a text is those bytes read as
UTF-8, and what is no UTF-8 becomes U+FFFD. So decoding piece by piece equals decoding at once.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

WORD = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The patterns by which llama.cpp cuts a text before merging, one after the other, by their name
# in `tokenizer.ggml.pre`
CUTS = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", WORD, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "gpt-2": (WORD,),
    "smollm": (r"\p{N}", WORD),
    "llama-bpe": (LLAMA3.replace("{DIGITS}", "{1,3}"),),
    "qwen2": (LLAMA3.replace("{DIGITS}", ""),),
}
SAME_CUTS = {
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "olmo": "gpt-2",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
}
CONTROL, USER_DEFINED, BYTE = 3, 4, 6  # values of tokenizer.ggml.token_type
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


BYTE_OF = _byte_alphabet()


class UnsupportedTokenizer(ValueError):
    """The checkpoint's tokenizer is of a kind that cannot be rebuilt faithfully."""


class Tokenizer:
    """One vocabulary. Safe to share between threads."""

    def __init__(
        self, backend: tokenizers.Tokenizer, bos_id: int | None = None, eos_id: int | None = None
    ) -> None:
        self.backend = _without_memory_of_texts(backend)
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.vocab_size: int = backend.get_vocab_size()
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._bytes = {i: token.content.encode() for i, token in added.items()}
        self._decoder = _decoder_parts(backend)
        # SentencePiece and WordPiece write every word with its space, the first one too
        self.drops_first_space = not self._decoder.isdisjoint({"Strip", "Metaspace", "WordPiece"})

    @classmethod
    def from_file(cls, path: Path, max_length: int | None = None, **ids: int | None) -> Tokenizer:
        """From a tokenizer.json; what it says of padding and truncation is overruled.

        `max_length` bounds a text with its special tokens; `ids` are `bos_id` and `eos_id`.
        """
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except OSError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise UnsupportedTokenizer(f"{path}: {error}") from error
        backend.no_padding()
        backend.no_truncation()
        if max_length is not None:
            backend.enable_truncation(max_length)
        return cls(backend, **ids)

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Tokenizer:
        """From the `tokenizer.ggml.*` metadata of a GGUF file, as plain Python values."""
        kinds = {"gpt2": _gpt2_backend, "llama": _sentencepiece_backend}
        kind = fields.get("tokenizer.ggml.model")
        if kind not in kinds:
            raise UnsupportedTokenizer(f"tokenizer model {kind!r} (known: {', '.join(kinds)})")
        backend = kinds[kind](fields)
        types = fields.get("tokenizer.ggml.token_type", ())
        pieces = [
            AddedToken(text, special=type_ == CONTROL, normalized=False)
            for text, type_ in zip(fields["tokenizer.ggml.tokens"], types, strict=False)
            if type_ in (CONTROL, USER_DEFINED)
        ]
        backend.add_tokens(pieces)
        bos, eos = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
        if bos is not None and fields.get("tokenizer.ggml.add_bos_token", _adds_bos(fields)):
            text = fields["tokenizer.ggml.tokens"][bos]
            backend.post_processor = processors.TemplateProcessing(
                single=[text, "$A"], pair=[text, "$A", "$B"], special_tokens=[(text, bos)]
            )
        return cls(backend, bos, eos)

    @classmethod
    def byte_level(cls, max_length: int | None = None) -> Tokenizer:
        """Ids 0 to 255 are the bytes; 256 opens and 257 closes a chat turn. Needs no file."""
        model = _bpe(vocab=dict(BYTE_OF), merges=[])
        backend = _byte_level_backend(model, ())
        backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        backend.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 256)]
        )
        if max_length is not None:
            backend.enable_truncation(max_length)
        return cls(backend, bos_id=256, eos_id=257)

    def encode(
        self, text: str, add_special_tokens: bool = False, allow_special: bool = True
    ) -> list[int]:
        """The ids of `text`. `allow_special=False` reads "<|im_end|>" as plain text."""
        backend = self.backend if allow_special else self._plain
        return backend.encode(text, add_special_tokens=add_special_tokens).ids

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """A copy, since the switch is a property of the object and threads share it."""
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.encode_special_tokens = True
        return _without_memory_of_texts(backend)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; unknown ids stand for nothing, broken UTF-8 for U+FFFD."""
        shown = (i for i in ids if not (skip_special_tokens and i in self.special_ids))
        data = b"".join(map(self.token_bytes, shown))
        if self.drops_first_space:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        """The token as text, with U+FFFD for the parts that are no character by themselves."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that the token stands for; empty for an id outside the vocabulary."""
        data = self._bytes.get(token_id)
        if data is None:
            piece = self.backend.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None
            if piece is None:  # not remembered: there is no end of such ids
                return b""
            data = self._bytes[token_id] = self._piece_bytes(piece)
        return data

    def _piece_bytes(self, piece: str) -> bytes:
        if "ByteLevel" in self._decoder and all(c in BYTE_OF for c in piece):
            return bytes(BYTE_OF[c] for c in piece)
        if "ByteFallback" in self._decoder and (match := BYTE_PIECE.fullmatch(piece)):
            return bytes.fromhex(match[1])
        if "WordPiece" in self._decoder:
            piece = piece[2:] if piece.startswith("##") else f" {piece}"
        if not self._decoder.isdisjoint({"Replace", "Metaspace"}):
            piece = piece.replace("▁", " ")
        return piece.encode()


class Detokenizer:
    """Streams the text of one sequence: the pieces of `push` and `flush` join to `decode`.

    A character whose bytes are spread over several tokens is held back until it is whole.
    `continues` keeps the space in front of the first word, for ids that go on from a text.
    """

    def __init__(
        self, tokenizer: Tokenizer, skip_special_tokens: bool = True, continues: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_space = tokenizer.drops_first_space and not continues

    def push(self, token_id: int) -> str:
        """The text that became certain with this token; often the token's own."""
        data = b"" if token_id in self._skipped else self._tokenizer.token_bytes(token_id)
        if self._drops_space and data:
            self._drops_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD if the ids stop inside a character, else nothing."""
        return self._utf8.decode(b"", final=True)


def _without_memory_of_texts(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Words are remembered; where nothing cuts texts, they would be whole texts, 40 MB a thread."""
    cuts, model = backend.pre_tokenizer, backend.model
    is_cut = cuts is not None and len(cuts.pre_tokenize_str("two words")) > 1
    if isinstance(model, models.BPE) and not is_cut:
        model._resize_cache(0)  # a constructor's option would be lost in a copy
    return backend


def _decoder_parts(backend: tokenizers.Tokenizer) -> frozenset[str]:
    """Names of the decoder's steps, e.g. {"ByteLevel"} or {"Replace", "ByteFallback", "Strip"}."""
    if backend.decoder is None:
        return frozenset()
    state = json.loads(backend.decoder.__getstate__())
    return frozenset(step["type"] for step in state.get("decoders", [state]))


def _bpe(**parts: Any) -> models.BPE:
    try:
        return models.BPE(**parts)
    except Exception as error:  # the library raises nothing narrower
        raise UnsupportedTokenizer(f"the vocabulary contradicts its merges: {error}") from error


def _byte_level_backend(model: models.Model, cuts: Iterable[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    steps = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in cuts]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, to_bytes])
    backend.decoder = decoders.ByteLevel()
    return backend


def _cuts_name(fields: Mapping[str, Any]) -> str:
    name = fields.get("tokenizer.ggml.pre", "default")
    name = SAME_CUTS.get(name, name)
    if name not in CUTS:
        known = ", ".join([*CUTS, *SAME_CUTS])
        raise UnsupportedTokenizer(f"pre-tokenizer {name!r} (known: {known})")
    return str(name)


def _adds_bos(fields: Mapping[str, Any]) -> bool:
    """Whether texts start with BOS where the file does not say, as in llama.cpp."""
    return fields["tokenizer.ggml.model"] == "llama" or _cuts_name(fields) == "llama-bpe"


def _gpt2_backend(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    name = _cuts_name(fields)
    vocab = {text: i for i, text in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [_merge_pair(merge) for merge in fields["tokenizer.ggml.merges"]]
    # Llama 3 takes a word that is in the vocabulary whole, even where no merge leads to it
    model = _bpe(vocab=vocab, merges=merges, ignore_merges=name == "llama-bpe")
    return _byte_level_backend(model, CUTS[name])


def _merge_pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _sentencepiece_backend(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A SentencePiece BPE model: it merges whichever pair makes the piece of the highest score."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    model = _bpe(
        vocab={text: i for i, text in enumerate(tokens)},
        merges=_merges_by_score(tokens, fields["tokenizer.ggml.scores"]),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=BYTE in fields["tokenizer.ggml.token_type"],
    )
    backend = tokenizers.Tokenizer(model)
    has_prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    prefix = [normalizers.Prepend("▁")] if has_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if has_prefix else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_by_score(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to split a piece into two pieces, best score first; ties keep the file's order."""
    score_of = dict(zip(tokens, scores, strict=True))
    pairs = []
    for piece in sorted(score_of, key=lambda text: -score_of[text]):
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        pairs += [(left, right) for left, right in splits if left in score_of and right in score_of]
    return pairs
