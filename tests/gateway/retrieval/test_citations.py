"""Citations: what supports a sentence, and what only looks as if it did."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retrieval.citations import NEAR, sentences, verify, without_far
from gateway.retrieval.found import Hit

POPITEM = "popitem() removes and returns a pair in LIFO order. Changed in version 3.7."
TEA = "Green tea should steep for two minutes in water of 80 degrees."


def hit(text: str, file: str) -> Hit:
    return Hit(
        passage=1, file=file, filename=f"{file}.md", heading="Notes", text=text, start=0, end=1,
        attributes={},
    )  # fmt: skip


GIVEN = [hit(POPITEM, "dict"), hit(TEA, "tea")]


def cited(answer: str) -> list[str]:
    return [it.hit.file for it in verify(answer, GIVEN).citations]


def test_a_supported_sentence_is_cited_where_it_ends() -> None:
    answer = "It is simple. Green tea steeps for two minutes in water. Enjoy!"
    verdict = verify(answer, GIVEN)
    (citation,) = verdict.citations
    assert citation.annotation() == {
        "type": "file_citation", "index": answer.index(" Enjoy"), "file_id": "tea",
        "filename": "tea.md",
    }  # fmt: skip
    assert verdict.num_unverified == 0


@pytest.mark.parametrize(
    ("answer", "files", "unverified"),
    [
        ("Green tea should steep two minutes [2].", ["tea"], 0),
        ("Green tea should steep two minutes. [2]", ["tea"], 0),
        ("Green tea should steep two minutes [1].", [], 1),  # another passage says so
        ("Green tea should steep two minutes [7].", [], 1),  # nobody was given a seventh
        ("Green tea needs water of 95 degrees [2].", [], 1),  # another number
        ("Popitem removes and returns pairs in LIFO order [1].", ["dict"], 0),
        ("The popitem() method returns pairs in LIFO order since version 3.7 [1].", ["dict"], 0),
        ("The popitem() method returns pairs in LIFO order since version 3.8 [1].", [], 1),
        ("The clear() method removes and returns a pair [1].", [], 1),  # another name
        ("Guests from Australia like green tea that steeps minutes in water [2].", [], 1),
        ("Both [1][2] do.", [], 2),
    ],
)
def test_marks_are_believed_only_when_they_hold(
    answer: str, files: list[str], unverified: int
) -> None:
    verdict = verify(answer, GIVEN)
    assert ([it.hit.file for it in verdict.citations], verdict.num_unverified) == (
        files, unverified,
    )  # fmt: skip


def test_groundedness_is_the_share_of_claims_that_are_supported() -> None:
    answer = "Green tea should steep two minutes. The moon orbits the distant earth slowly. Yes."
    assert verify(answer, GIVEN).groundedness == 0.5
    assert verify("Yes.", GIVEN).groundedness is None
    assert verify(answer, []).groundedness == 0.0
    assert cited("The moon orbits the distant earth slowly.") == []


def test_a_citation_whose_passage_is_far_is_dropped_and_counted() -> None:
    verdict = verify("Green tea should steep two minutes [2]. Popitem returns pairs [1].", GIVEN)
    assert [it.claim.strip() for it in verdict.citations] == [
        "Green tea should steep two minutes  .", "Popitem returns pairs  .",
    ]  # fmt: skip
    left = without_far(verdict, [NEAR, NEAR - 0.01])
    assert ([it.hit.file for it in left.citations], left.num_unverified) == (["tea"], 1)
    assert without_far(verdict, [None, None]) == verdict


@given(st.text(max_size=200))
def test_any_answer_has_a_verdict(answer: str) -> None:
    verdict = verify(answer, GIVEN)
    assert all(0 <= it.index <= len(answer) for it in verdict.citations)
    assert [end for _, end in sentences(answer)] == sorted(end for _, end in sentences(answer))
