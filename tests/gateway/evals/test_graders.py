"""What each grader calls right."""

from typing import Any

import pytest

from gateway.evals import graders as g
from gateway.evals.cases import Answer, Case

PASSAGE = "The Lanner bridge was opened in 1931. It is 214 metres long."
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def score(grader: g.TextGrader, text: str, *sources: str, **fields: Any) -> float:
    case = Case(id="x", **fields)
    assert grader.takes(case)
    return grader.score(case, Answer(text, frozenset(sources)))


@pytest.mark.parametrize(
    ("grader", "text", "right"),
    [
        (g.Exact(), "the Paris!", 1),
        (g.Exact(), "It is Paris", 0),
        (g.Contains(), "It is Paris, of course.", 1),
        (g.Contains(), "Comparison", 0),
        (g.Contains(), "The City of Light", 1),
        (g.TokenF1(), "Paris city", 2 / 3),
        (g.RougeL(), "Paris", 1),
        (g.Bleu(), "Lyon", 0),
    ],
)
def test_words(grader: g.TextGrader, text: str, right: float) -> None:
    assert score(grader, text, expected=("Paris", "City of Light")) == pytest.approx(right)


def test_a_pattern() -> None:
    assert score(g.Regex(), "7.", pattern=r"^\d\.?$") == 1
    assert score(g.Regex(), "It is 7.", pattern=r"^\d\.?$") == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [('{"name": "Ann"}', 1), ('{"name": 7}', 0), ("{}", 0), ('Sure: {"name": "Ann"}', 0), ("", 0)],
)
def test_json_of_a_schema(text: str, right: float) -> None:
    assert score(g.Schema(), text, schema=NAME) == right


@pytest.mark.parametrize(
    ("schema", "text", "right"),
    [
        ({"type": "object", "required": ["a"]}, "{}", 0),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, '{"a": 1}', 0),
        ({"items": {"type": "string"}}, "[1]", 0),
        ({"type": "integer"}, "1.0", 1),
        ({"type": ["string", "null"]}, "null", 1),
        ({"type": "object", "properties": {"my-key": {}}, "additionalProperties": False}, "{}", 1),
        ({"additionalProperties": False}, '{"b": 1}', 0),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"const": 1}, {"const": 2}]}}}, "2", 1),
        ({}, "[" * 10_000, 0),
    ],
)
def test_all_of_json_schema_counts(schema: dict[str, Any], text: str, right: float) -> None:
    assert score(g.Schema(), text, schema=schema) == right


@pytest.mark.parametrize(
    ("expected", "text", "exact", "contains"),
    [
        ("A", "", 0, 0),
        ("A", "the", 0, 0),
        ("A", "a.", 1, 1),
        ("-", "", 0, 0),
        ("15", "1.5", 0, 0),
        ("5", "It is -5", 0, 0),
        ("1.5", "1.5.", 1, 1),
        ("1000", "1,000", 1, 1),
        ("Paris", "“Paris”", 1, 1),
        ("Paris", "Paris—France", 0, 1),
        ("don't", "Don’t!", 1, 1),
        ("caf\u00e9", "cafe\u0301", 1, 1),
    ],
)
def test_what_makes_words_the_same(expected: str, text: str, exact: float, contains: float) -> None:
    assert score(g.Exact(), text, expected=(expected,)) == exact
    assert score(g.Contains(), text, expected=(expected,)) == contains


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("I do not know.", True),
        ("I don't have enough information to say.", True),
        ("Use the kill command with the id of the process.", False),
        ("Sorry to hear that! Try turning it off and on.", False),
    ],
)
def test_refusals_are_right_only_where_wanted(text: str, is_refused: bool) -> None:
    assert g.is_refusal(text) == is_refused
    assert score(g.Refusal(), text, refuse=True) == is_refused
    assert score(g.Refusal(), text, refuse=False) == (not is_refused)


def test_claims_are_held_against_the_passages() -> None:
    lie = "The Lanner bridge was opened in 1850 by Queen Ada."
    truth = "The Lanner bridge was opened in 1931."
    assert score(g.Groundedness(), truth, passages=(PASSAGE,)) == 1
    assert score(g.Groundedness(), f"{truth} {lie}", passages=(PASSAGE,)) == 0.5
    assert score(g.Groundedness(), "Hello!", passages=(PASSAGE,)) == 1


def test_marks_are_held_against_their_passages() -> None:
    other = "Bread is baked in an oven of bricks."
    right = "The Lanner bridge was opened in 1931 [1]."
    both = f"{right} The Lanner bridge is 214 metres long [2]."
    assert score(g.Citations(), right, passages=(PASSAGE, other)) == 1
    assert score(g.Citations(), both, passages=(PASSAGE, other)) == 0.5
    assert score(g.Citations(), "No marks.", passages=(PASSAGE,)) == 0


def test_files_that_were_to_be_cited() -> None:
    assert score(g.Sources(), "", "a", "c", sources=("a", "b")) == 0.5


def test_a_grader_takes_what_it_needs_and_its_tags() -> None:
    with_tag = Case(id="x", expected=("y",), tags=("facts", "short"))
    assert g.Exact(tags=("facts",)).takes(with_tag)
    assert not g.Exact(tags=("bias",)).takes(with_tag)
    assert not g.Regex().takes(with_tag)
    assert g.Refusal().takes(Case(id="y", refuse=False))


def test_passages_stand_numbered_before_the_question() -> None:
    [turn] = Case(id="x", question="When?", passages=("One.", "Two.")).turns()
    assert turn == {"role": "user", "content": "[1] One.\n\n[2] Two.\n\nWhen?"}
