import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.text import TextStream
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()


def shown(text: str, stops: tuple[str, ...], include_stop: bool = False) -> list[str]:
    stream = TextStream(BYTES, stops, include_stop)
    pieces = []
    for token_id in BYTES.encode(text, allow_special=False):
        pieces.append(stream.push(token_id))
        if stream.stopped_by is not None:
            return pieces
    return [*pieces, stream.flush()]


@given(st.text("abé", max_size=12), st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_text_ends_where_the_first_stop_string_begins(text: str, stops: list[str]) -> None:
    # a stop string counts as soon as it is complete, so of two that overlap the shorter may win
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    complete = text[: min(ends)] if ends else text
    places = [complete.find(stop) for stop in stops if stop in complete]
    pieces = shown(text, tuple(stops))
    assert "".join(pieces) == text[: min(places, default=len(text))]
    for i in range(len(pieces)):
        assert not any(stop in "".join(pieces[:i]) for stop in stops)


@pytest.mark.parametrize("include", [False, True])
def test_the_stop_string_itself_is_shown_on_request(include: bool) -> None:
    assert "".join(shown("one END two", ("END",), include)) == ("one END" if include else "one ")


def test_what_only_looked_like_a_stop_is_shown_later() -> None:
    assert shown("aENb", ("END",)) == ["a", "", "", "ENb", ""]
    assert shown("aEN", ("END",)) == ["a", "", "", "EN"]


def test_of_two_that_end_together_the_longer_counts() -> None:
    assert "".join(shown("xaby", ("b", "ab"))) == "x"


def test_a_stop_before_its_time_is_plain_text() -> None:
    stream = TextStream(BYTES, ("x",))
    assert stream.push(ord("x"), may_stop=False) == "x"
    assert stream.push(ord("x")) == ""
    assert stream.stopped_by == "x"


def test_half_characters_wait() -> None:
    stream = TextStream(BYTES)
    assert [stream.push(b) for b in "é!".encode()] == ["", "é", "!"]
    assert stream.push(0xC3) == ""
    assert stream.flush() == "\ufffd"
