"""The golden questions: enough of each kind, and every gold span is in the text that it names."""

import json
import sys
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import pytest

QUESTIONS = [
    json.loads(line) for line in Path(__file__).with_name("topics.jsonl").read_text().splitlines()
]


def test_there_are_enough_of_each_kind() -> None:
    kinds = Counter(it["kind"] for it in QUESTIONS)
    assert kinds.keys() == {"answerable", "paraphrase", "multi-passage", "unanswerable"}
    assert kinds.total() >= 150
    assert min(kinds.values()) >= 20
    assert len({it["id"] for it in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the text differs between Pythons")
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda it: it["id"])
def test_every_span_is_in_its_topic(question: dict[str, list[str]]) -> None:
    text = " ".join(" ".join(topics[name].split()) for name in question["topics"])
    assert all(span in text for span in question["spans"])
    assert bool(question["spans"]) == (question["kind"] != "unanswerable")
