"""Text to ids and back: byte for byte, piece by piece, and as llama.cpp cuts it."""

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import BYTE_OF, CUTS, Detokenizer, Tokenizer, UnsupportedTokenizer

GOLDEN = Path(__file__).parent.parent / "goldens" / "smollm2_tokens.json"
CONTROL, NORMAL, BYTE = 3, 1, 6


def gpt2_fields(pre: str | None, words: list[str] = []) -> dict[str, Any]:  # noqa: B006
    """Metadata of a byte-level BPE: two special tokens, the bytes, and one merge per word."""
    tokens = ["<s>", "</s>", *BYTE_OF, *words]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL] * 2 + [NORMAL] * (len(tokens) - 2),
        "tokenizer.ggml.merges": [f"{word[:-1]} {word[-1]}" for word in words],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    return fields if pre is None else fields | {"tokenizer.ggml.pre": pre}


def sentencepiece_fields(**changes: Any) -> dict[str, Any]:
    """Metadata of a SentencePiece BPE that knows a few pieces, and bytes for all else."""
    pieces = {
        "▁": -9.0, "h": -9.0, "e": -9.0, "l": -9.0, "o": -9.0,
        "he": -2.0, "ll": -1.0, "llo": -3.0, "▁hello": -4.0, "hello": -5.0, "el": -6.0,
    }  # fmt: skip
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(pieces.values()),
        "tokenizer.ggml.token_type": [2, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **changes,
    }


def word_piece() -> Tokenizer:
    vocab = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3, "##s": 4, "you": 5}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    return Tokenizer(backend)


TOKENIZERS = {
    "byte_level": Tokenizer.byte_level(),
    "gpt2": Tokenizer.from_gguf(gpt2_fields("smollm", ["he", "hel"])),
    "sentencepiece": Tokenizer.from_gguf(sentencepiece_fields()),
    "word_piece": word_piece(),
}
any_tokenizer = st.sampled_from(list(TOKENIZERS.values()))
ids = st.lists(st.integers(0, 300), max_size=60)  # some lie outside each vocabulary


@given(any_tokenizer, ids, st.booleans())
def test_streamed_text_equals_the_whole(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    streamed = ""
    for token_id in ids:
        streamed += detokenizer.push(token_id)
        assert whole.startswith(streamed)  # nothing is ever shown that later proves wrong
    assert streamed + detokenizer.flush() == whole


@given(st.text())
def test_bytes_bring_every_text_back(text: str) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


@given(st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
def test_sentencepiece_brings_every_text_back(text: str) -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    if "<" not in text:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.sampled_from(["byte_level", "gpt2", "sentencepiece"]), ids)
def test_decoding_agrees_with_the_library(kind: str, ids: list[int]) -> None:
    tokenizer = TOKENIZERS[kind]
    ours = tokenizer.decode(ids)
    if "�" not in ours:  # for broken UTF-8 the library has one rule per decoder
        assert ours == tokenizer.backend.decode(ids, skip_special_tokens=True)


def test_half_a_character_is_held_back() -> None:
    tokenizer = Tokenizer.byte_level()
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(i) for i in tokenizer.encode("a€b")] == ["a", "", "", "€", "b"]
    assert [detokenizer.push(i) for i in tokenizer.encode("€")[:2]] == ["", ""]
    assert detokenizer.flush() == "�"


@pytest.mark.parametrize("allow_special", [True, False])
def test_texts_that_nothing_cuts_are_not_remembered(allow_special: bool) -> None:
    tokenizer, process = Tokenizer.byte_level(), psutil.Process()
    tokenizer.encode("warm", allow_special=allow_special)
    before = process.memory_info().rss
    for number in range(4_000):
        tokenizer.encode(f"{number} " + "a text of one word " * 10, allow_special=allow_special)
    assert process.memory_info().rss - before < 4 << 20  # the library would keep 20 MB


def test_a_special_token_is_plain_text_where_that_is_wanted() -> None:
    tokenizer = Tokenizer.byte_level()
    assert tokenizer.encode("<|im_end|>") == [257]
    plain = tokenizer.encode("<|im_end|>", allow_special=False)
    assert tokenizer.decode(plain) == "<|im_end|>"
    assert tokenizer.encode("<|im_end|>") == [257]  # the switch did not stick
    assert tokenizer.decode([257, 65]) == "A"
    assert tokenizer.decode([257, 65], skip_special_tokens=False) == "<|im_end|>A"


def test_a_token_outside_the_vocabulary_is_nothing() -> None:
    tokenizer = Tokenizer.byte_level()
    assert tokenizer.decode([10_000, -1, 1 << 40, 65]) == "A"
    assert tokenizer.token_text(0xE2) == "�"
    assert tokenizer.vocab_size == 258


def test_from_file_overrules_padding_and_truncation(tmp_path: Path) -> None:
    backend = Tokenizer.byte_level().backend
    backend.enable_padding(length=9)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_file(tmp_path / "tokenizer.json").encode("abcdefgh")) == 8
    short = Tokenizer.from_file(tmp_path / "tokenizer.json", max_length=3, eos_id=257)
    assert len(short.encode("abcdefgh")) == 3
    assert short.eos_id == 257


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UnsupportedTokenizer, match=r"tokenizer\.json"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_smollm_reads_digit_by_digit() -> None:
    words = ["12", "Ġ1", "he"]
    encoded = {
        pre: len(Tokenizer.from_gguf(gpt2_fields(pre, words)).encode("12 he"))
        for pre in ("smollm", "gpt-2", "starcoder")
    }
    assert encoded == {"smollm": 4, "gpt-2": 3, "starcoder": 4}


def test_llama3_takes_a_known_word_whole_and_starts_with_bos() -> None:
    fields = gpt2_fields("llama-bpe", ["ab"])
    fields["tokenizer.ggml.tokens"] += ["xyz"]  # no merge leads to it
    tokenizer = Tokenizer.from_gguf(fields)
    assert tokenizer.decode(tokenizer.encode("xyz")) == "xyz"
    assert len(tokenizer.encode("xyz")) == 1
    assert tokenizer.encode("xyz", add_special_tokens=True)[0] == 0
    fields["tokenizer.ggml.add_bos_token"] = False
    assert len(Tokenizer.from_gguf(fields).encode("xyz", add_special_tokens=True)) == 1


@pytest.mark.parametrize("pre", [*CUTS, "llama3", None])
@given(text=st.text(max_size=40))
def test_every_way_to_cut_loses_nothing(pre: str | None, text: str) -> None:
    tokenizer = Tokenizer.from_gguf(gpt2_fields(pre, ["he", "hel", "Ġt"]))
    assert tokenizer.decode(tokenizer.encode(text, allow_special=False)) == text


def test_what_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedTokenizer, match="'tekken'"):
        Tokenizer.from_gguf(gpt2_fields("tekken"))
    with pytest.raises(UnsupportedTokenizer, match="'t5'"):
        Tokenizer.from_gguf({"tokenizer.ggml.model": "t5"})
    fields = gpt2_fields("smollm") | {"tokenizer.ggml.merges": ["q x"]}
    with pytest.raises(UnsupportedTokenizer, match="qx"):
        Tokenizer.from_gguf(fields)


def test_sentencepiece_merges_by_score() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_fields())
    pieces = [tokenizer.backend.id_to_token(i) for i in tokenizer.encode("hello hello")]
    # ll, he, llo, then ▁hello has no two parts to be made of but hello: ▁ + hello
    assert pieces == ["▁hello", "▁hello"]
    assert tokenizer.encode("é") == [259, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.encode("o", add_special_tokens=True)[0] == 1
    assert tokenizer.decode([1, 259, 3 + 0xC3, 3 + 0xA9, 2]) == "é"


def test_a_continuation_keeps_its_first_space() -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_fields())
    (hello,) = tokenizer.encode("hello")
    assert Detokenizer(tokenizer).push(hello) == "hello"
    assert Detokenizer(tokenizer, continues=True).push(hello) == " hello"


@pytest.mark.weights
def test_smollm2_encodes_as_llama_cpp_does() -> None:
    from model.weights.gguf_header import read_gguf

    home = Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser()
    folder = home / "models" / "smollm2"
    fields, _ = read_gguf(next(folder.glob("*.gguf")))
    from_gguf = Tokenizer.from_gguf(fields)
    from_file = Tokenizer.from_file(folder / "tokenizer.json")
    for text, expected in json.loads(GOLDEN.read_text()):
        assert from_gguf.encode(text) == expected
        assert from_file.encode(text) == expected
        assert from_gguf.decode(expected, skip_special_tokens=False) == text
