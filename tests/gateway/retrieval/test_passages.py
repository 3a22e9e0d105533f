"""Parsers find sections; cutting keeps to the limit, to offsets and to whole sentences."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.retrieval.parsers import TOPICS, documents, parse, read
from gateway.retrieval.passages import MAX_PIECES, Document, Pieces, Section, cut

PIECES = Pieces()
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\r") | st.sampled_from(" .\n"), max_size=3000
)


def document(text: str) -> Document:
    return Document("a.txt", "a.txt", text, (Section((), 0, len(text)),))


@given(TEXTS, st.integers(20, 60))
def test_passages_are_the_text_in_order_and_within_the_limit(text: str, limit: int) -> None:
    found = cut(document(text), PIECES, limit)
    covered = 0
    for it in found:
        assert text[it.start : it.end] == it.text
        assert PIECES.count([it.text])[0] <= limit
        assert not text[covered : it.start].strip()  # nothing is lost between two
        covered = it.end
    assert not text[covered:].strip()


def test_neighbours_share_whole_sentences() -> None:
    text = " ".join(f"Sentence number {n} says something." for n in range(60))
    found = cut(document(text), PIECES, 60)
    assert len(found) > 5
    for it, following in pairwise(found):
        assert it.text.startswith("Sentence")
        assert it.text.endswith("something.")
        assert following.start < it.end


def test_a_heading_is_title_and_path() -> None:
    made = parse("notes.md", b"Intro.\n# One\nFirst.\n## Two\nSecond.\n# Three\nThird.\n")
    assert [(it.heading, it.text) for it in cut(made, PIECES)] == [
        ("notes.md", "Intro."),
        ("notes.md › One", "First."),
        ("notes.md › One › Two", "Second."),
        ("notes.md › Three", "Third."),
    ]


def test_a_hash_in_a_fence_is_no_heading() -> None:
    made = parse("a.md", b"# One\n```\n# not a heading\n```\ntext\n")
    assert [it.path for it in made.sections] == [("One",)]


def test_html_shows_what_a_reader_sees() -> None:
    page = (
        b"<html><head><title>My &amp; page</title><style>p{}</style></head><body>"
        b"<p>Intro<h1>One</h1><p>First<script>evil()</script><ul><li>a<li>b</ul><h2>T<b>w</b>o</h2>"
        b"<p>Second</body>"
    )
    made = parse("a.html", page)
    found = cut(made, PIECES)
    assert made.title == "My & page"
    assert [(it.heading, it.text) for it in found] == [
        ("My & page", "Intro"),
        ("My & page › One", "First\na\nb"),
        ("My & page › One › Two", "Second"),
    ]


def test_python_is_cut_at_its_definitions() -> None:
    source = (
        b'"""Doc."""\nimport x\n\nclass A:\n    y = 1\n\n    @x\n    def f(self):\n        pass\n'
    )
    made = parse("a.py", source)
    assert [(it.path, made.text[it.start : it.end].split()[0]) for it in made.sections] == [
        (("A",), '"""Doc."""'),
        (("A", "f"), "@x"),
    ]
    assert len(parse("bad.py", b"def (:\n").sections) == 1


@given(st.binary(max_size=300), st.sampled_from(["a.txt", "a.md", "a.html", "a.py", "a.rst"]))
def test_any_bytes_are_read_or_refused(raw: bytes, name: str) -> None:
    with suppress(BadRequest):
        cut(parse(name, raw), PIECES)


def test_topics_are_each_said_once() -> None:
    made = {source: parse(source, read(where)) for source, where in documents(TOPICS)}
    assert len(made) == len(topics)
    texts = [
        " ".join(it.text[section.start : section.end].split())
        for it in made.values()
        for section in it.sections
    ]
    assert len(texts) == len(set(texts))
    title = made[f"{TOPICS}/for"].title
    assert title == 'The "for" statement'


def test_a_folder_is_read_in_order_and_by_suffix(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "c.exe"):
        (tmp_path / name).write_text("x")
    assert [source for source, _ in documents(str(tmp_path))] == ["a.txt", "b.md"]
    assert [source for source, _ in documents(str(tmp_path / "c.exe"))] == ["c.exe"]
    with pytest.raises(BadRequest, match="there is no"):
        list(documents(str(tmp_path / "none")))


@pytest.mark.weights
def test_the_embedders_own_pieces_are_counted() -> None:
    from gateway.setup import pulled_tokenizer

    pieces = Pieces(pulled_tokenizer("minilm"))
    made = parse(f"{TOPICS}/for", topics["for"].encode())
    found = cut(made, pieces)
    assert max(pieces.count([it.indexed for it in found])) <= MAX_PIECES
    clipped = pieces.clip(topics["for"], 10)
    assert pieces.count([clipped]) == [10]
    assert topics["for"].startswith(clipped)
