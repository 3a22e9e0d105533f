"""A key says whether it has a typo before anybody is asked."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.key_format import ALPHABET, digest, is_same, mint, parse

characters = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=1)


@given(st.integers(0, 67), characters)
def test_one_wrong_character_is_caught(place: int, character: str) -> None:
    key_id, text = mint()
    assert parse(text) == key_id
    place %= len(text)
    wrong = text[:place] + character + text[place + 1 :]
    assert parse(wrong) is None or wrong == text


@given(st.integers(6, 66))
def test_swapped_neighbours_are_caught(place: int) -> None:
    _, text = mint()
    place %= len(text) - 1
    wrong = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    assert parse(wrong) is None or wrong == text


@given(st.text())
def test_any_text_may_be_sent(text: str) -> None:
    assert parse(text) is None
    assert parse("sk-gg-" + text) is None


def test_a_second_secret_has_the_same_id() -> None:
    key_id, text = mint()
    same_id, other = mint(key_id)
    assert same_id == key_id == parse(other)
    assert not is_same(digest(text), digest(other))
    assert set(key_id) <= set(ALPHABET)
    assert mint("a-name-of-the-config")[0] == parse(mint("a-name-of-the-config")[1])
