"""Everything but a short list changes the key; how it is written does not."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.answer_key import (
    IGNORED,
    MAX_TEXT,
    Controls,
    Policy,
    Question,
    Scope,
    ask,
    is_reworded,
    read_controls,
)
from gateway.errors import BadRequest

SCOPE = Scope("chat", "f1", "team:a", "greet@1", "docs@3#7")
ALL = Policy(60.0, sampled=True)
CHAT = {"model": "town", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["model", "messages", "temperature", "tools", "seed", "extra_body", "x"])
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)


def key_of(body: dict[str, Any], scope: Scope = SCOPE) -> str:
    question = ask(scope, body, {}, ALL, "")
    assert question is not None
    return question.key


def shuffled(value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        names = order.draw(st.permutations(list(value)))
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(it, order) for it in value] if isinstance(value, list) else value


@given(BODIES, NAMES, VALUES)
def test_any_other_field_changes_the_key(body: dict[str, Any], name: str, value: Any) -> None:
    changed = {**body, name: value}
    assume(json.dumps(changed, sort_keys=True) != json.dumps(body, sort_keys=True))
    assert key_of(changed) != key_of(body)


@given(BODIES, st.sampled_from([name for name in IGNORED if name != "cache"]), VALUES)
def test_what_determines_nothing_does_not(body: dict[str, Any], name: str, value: Any) -> None:
    assert key_of({**body, name: value}) == key_of(body)
    assert key_of({**body, "cache": {"no_cache": True}}) == key_of(body)


@given(BODIES, st.integers(0, 3), st.data())
def test_order_and_whitespace_do_not(body: dict[str, Any], indent: int, order: Any) -> None:
    again = msgspec.json.decode(json.dumps(shuffled(body, order), indent=indent).encode())
    assert key_of(again) == key_of(body)


@pytest.mark.parametrize("field", Scope.__struct_fields__)
def test_who_asks_and_of_what_is_in_the_key(field: str) -> None:
    other = msgspec.structs.replace(SCOPE, **{field: "completions"})
    assert key_of(CHAT, other) != key_of(CHAT)


def test_fields_of_the_scope_cannot_run_into_each_other() -> None:
    one, two = Scope("chat", "ab", "c"), Scope("chat", "a", "bc")
    assert key_of(CHAT, one) != key_of(CHAT, two)


@pytest.mark.parametrize(
    ("body", "sampling", "is_asked"),
    [
        ({}, {}, False),
        ({"temperature": 1}, {"temperature": 0}, False),
        ({"temperature": 0.0}, {}, True),
        ({}, {"temperature": 0}, True),
        ({"temperature": 1, "seed": 7}, {}, True),
    ],
)
def test_sampled_answers_are_kept_only_if_the_release_allows(
    body: dict[str, Any], sampling: dict[str, Any], is_asked: bool
) -> None:
    assert (ask(SCOPE, body, sampling, Policy(60.0), "") is not None) is is_asked
    assert ask(SCOPE, body, sampling, ALL, "") is not None


def test_embeddings_repeat_themselves() -> None:
    body = {"model": "minilm", "input": "hi"}
    question = ask(Scope("embeddings", "f1", "a"), body, {}, Policy(60.0, threshold=0.9), "")
    assert question is not None
    assert question.text == ""  # a similar text has another vector


def semantic(**body: Any) -> Question:
    question = ask(SCOPE, body, {}, Policy(60.0, sampled=True, threshold=0.9), "")
    assert question is not None
    return question


def test_only_the_last_user_text_is_outside_the_partition() -> None:
    def turns(*texts: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": texts[0]}, {"role": "user", "content": texts[1]}]

    base = semantic(messages=turns("be kind", "hi"), top_p=1)
    assert base.text == "hi"
    assert semantic(messages=turns("be kind", "hello"), top_p=1).partition == base.partition
    assert semantic(messages=turns("be rude", "hi"), top_p=1).partition != base.partition
    assert semantic(messages=turns("be kind", "hi"), top_p=0.5).partition != base.partition
    assert base.partition != base.key


@pytest.mark.parametrize(
    ("text", "other", "is_same"),
    [
        ("Add 15% of 80", "add 80 to 15%", True),
        ("Add 15% of 80", "add 16% of 80", False),
        ("May I go?", "Mayn't I go?", False),
        ("May I go?", "May I not go?", False),
        ("a node", "a knot", True),
    ],
)
def test_numbers_and_denials_are_walls(text: str, other: str, is_same: bool) -> None:
    one, two = (semantic(input=it) for it in (text, other))
    assert (one.partition == two.partition) is is_same


def test_long_texts_are_not_compared_by_meaning() -> None:
    assert semantic(input="x" * MAX_TEXT).partition
    longer = semantic(input="x" * (MAX_TEXT + 1))
    assert (longer.partition, longer.text) == ("", "")


@pytest.mark.parametrize(
    ("text", "other", "may_be"),
    [
        ("What is the capital of Peru?", "what is the capital of peru", True),
        ("What is the capital of Peru?", "What is the capital of Chad?", False),
        ("What is the capital of Peru?", "Name the Peruvian capital city", True),
        ("How is a string turned into a number?", "How is a number turned into a string?", False),
        ("秘鲁的首都是哪里", "乍得的首都是哪里", False),
        ("", "", True),
    ],
)
def test_near_texts_that_share_most_words_differ_by_the_others(
    text: str, other: str, may_be: bool
) -> None:
    assert is_reworded(text, other) is is_reworded(other, text) is may_be


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": []},
        {"prompt": "hi"},
    ],
)
def test_what_does_not_end_in_a_users_text_has_no_partition(body: dict[str, Any]) -> None:
    assert (semantic(**body).partition, semantic(**body).text) == ("", "")


def test_a_response_may_be_asked_with_a_bare_text() -> None:
    assert semantic(input="hi").text == "hi"
    assert semantic(input=[{"role": "user", "content": "hi"}]).text == "hi"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Controls()),
        ("no-cache", Controls(no_cache=True)),
        ("Max-Age=5, No-Store , private", Controls(no_store=True, max_age=5)),
        ('max-age="9", max-age=3', Controls(max_age=3)),
        ("only-if-cached, max-age=x", Controls(only_if_cached=True)),
    ],
)
def test_cache_control(header: str, expected: Controls) -> None:
    assert read_controls(None, header) == expected


def test_the_body_says_it_over_the_header() -> None:
    controls = read_controls({"no_cache": False, "max_age": 9}, "no-cache, only-if-cached")
    assert controls == Controls(max_age=9, only_if_cached=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"max_age": -1}, "cache.max_age"), ({"ttl": 5}, "cache.ttl"), (True, "cache")],
)
def test_a_wrong_cache_field_is_named(fields: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_controls(fields, "")
    assert caught.value.param == param


def test_no_store_goes_past_the_cache() -> None:
    assert ask(SCOPE, CHAT, {}, ALL, "no-store") is None
    assert ask(SCOPE, {**CHAT, "cache": {"no_store": True}}, {}, ALL, "") is None
