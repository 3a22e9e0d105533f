"""Repeats, leaks and personal data are found where they are, and nowhere else."""

import pytest

from model.training.audit import NEAR, Index, audit, personal, shingles, split
from model.training.rows import Row

LONG = "the river rises in the hills and runs past nine old mills on its slow way to the wide sea"


def row(line: int, question: str, answer: str = "fine", source: str = "") -> Row:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Row(line, messages, None, source)


def test_repeats_are_found_near_and_far() -> None:
    rows = [row(1, LONG), row(2, "something else entirely"), row(3, LONG.upper() + "!"),
            row(4, f"{LONG} today"), row(5, "why the river rises in the hills")]  # fmt: skip
    found = audit(rows, []).findings["repeat"]
    assert [problem.line for problem in found] == [3, 4]
    assert found[0].reason == "repeats line 1"
    assert "like line 1" in found[1].reason


@pytest.mark.parametrize(
    ("a", "b"),
    [("2 + 3 + 4", "2 - 3 - 4"), ("👍", "👎"), ("is a > b and c < d", "is a < b and c > d")],
)
def test_signs_tell_texts_apart(a: str, b: str) -> None:
    assert audit([row(1, a), row(2, b)], []).findings["repeat"] == []


def test_pairs_above_the_bound_are_hardly_ever_missed() -> None:
    words = [f"w{n}" for n in range(80)]
    missed = 0
    for n in range(60):
        index = Index()
        text = " ".join(f"{word}{n}" for word in words)
        other = text.rsplit(" ", 8)[0]  # 70 of 78 sequences are the same
        index.add(1, text)
        a, b = shingles(text), shingles(other)
        assert len(a & b) / len(a | b) > NEAR
        missed += index.find(other) is None
    assert missed == 0


def test_a_question_of_the_test_is_a_leak_whatever_the_answer() -> None:
    found = audit([row(1, LONG, "a"), row(2, "hello you there")], [], [row(7, LONG, "b")])
    (leak,) = found.findings["leak into the test"]
    assert (leak.line, "line 7 of the test" in leak.reason) == (1, True)
    assert found.unfit_lines == {1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ada.b+c@mail.example.org now", "an e-mail address"),
        ("call +49 170 1234567 or (212) 555-0147", "a telephone number"),
        ("from 192.168.10.254", "an IP address"),
        ("pay to DE89 3704 0044 0532 0130 00", "a bank account"),
        ("card 4111 1111 1111 1111", "a payment card"),
        ("use sk-abcdefghijklmnop1234", "a key"),
    ],
)
def test_personal_data(text: str, kind: str) -> None:
    assert personal(text) == [kind]


@pytest.mark.parametrize(
    "text",
    ["1 + 2 = 3 and 2026-11-24", "version 3.11.7", "a@b", "4111 1111 1111 1112", "pi 3.141592"],
)
def test_plain_text_is_no_personal_data(text: str) -> None:
    assert personal(text) == []


@pytest.mark.parametrize(
    ("sizes", "share", "in_test"),
    [([20], 0.1, 2), ([18, 2], 0.1, 2), ([10, 10], 0.1, 10), ([10, 10], 0.99, 10), ([1], 0.5, 0)],
)
def test_neither_part_is_empty(sizes: list[int], share: float, in_test: int) -> None:
    names = [f"s{n}" for n, size in enumerate(sizes) for _ in range(size)]
    rows = [row(n, f"q{n}", source=name) for n, name in enumerate(names)]
    for seed in range(5):
        train, test = split(rows, share, seed)
        assert (len(train), len(test)) == (len(rows) - in_test, in_test)


def test_a_split_parts_no_source() -> None:
    rows = [row(n, f"q{n}", source=f"s{n % 5}") for n in range(50)]
    train, test = split(rows, 0.2, seed=1)
    assert len(train) + len(test) == 50
    assert len(test) == 10
    assert not {it.source for it in train} & {it.source for it in test}
