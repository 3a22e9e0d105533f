"""Every form becomes the same rows; every wrong line is named with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.training.rows import as_openai, read_rows

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
CHAT = {"messages": [USER, ANSWER]}
FORMS = {
    "openai": CHAT,
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
    },
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello!"},
}
PREFERENCES = {
    "openai": {
        "input": {"messages": [USER]}, "preferred_output": [ANSWER],
        "non_preferred_output": [{"role": "assistant", "content": "Go away."}],
    },
    "prompt": {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."},
    "conversations": {
        "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "Go away."}],
    },
}  # fmt: skip


def written(folder: Path, *values: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values), "utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_conversations(tmp_path: Path, form: str) -> None:
    rows, problems = read_rows(written(tmp_path, FORMS[form]))
    assert not problems
    assert [row.messages for row in rows] == [[USER, ANSWER]]
    assert rows[0].rejected is None
    assert as_openai(rows[0]) == CHAT


@pytest.mark.parametrize("form", PREFERENCES)
def test_forms_of_preferences(tmp_path: Path, form: str) -> None:
    (row,), problems = read_rows(written(tmp_path, PREFERENCES[form]))
    assert not problems
    assert (row.messages, row.rejected) == ([USER, ANSWER], "Go away.")
    assert as_openai(row) == PREFERENCES["openai"]


def test_an_array_is_read_as_lines_are(tmp_path: Path) -> None:
    rows, _ = read_rows(written(tmp_path, json.dumps([FORMS["alpaca"], FORMS["alpaca"]], indent=1)))
    assert [row.line for row in rows] == [1, 2]


def test_alpaca_puts_the_input_under_the_instruction(tmp_path: Path) -> None:
    rows, _ = read_rows(
        written(tmp_path, {"instruction": "Sum", "input": "1 2", "output": "3", "source": "me"})
    )
    assert rows[0].messages[0]["content"] == "Sum\n\n1 2"
    assert rows[0].source == "me"


BAD: dict[str, Any] = {
    "no JSON": '{"messages": [',
    "not a JSON object": "3",
    "no known form: it has a, b": {"a": 1, "b": 2},
    "misshapen: a part of it is of another type": {"messages": 3},
    "misshapen: 'from' is missing": {"conversations": [{"value": "x"}]},
    "nested too deeply": "[" * 100_000,
    "message 2 has half a character": {"messages": [USER, {**ANSWER, "content": "\ud83d"}]},
    "rejected answer has half a character": {"prompt": "?", "chosen": "a", "rejected": "\ud83d"},
    "message 2 is empty": {"messages": [USER, {"role": "assistant", "content": " "}]},
    "roles must be": {"messages": [USER]},
    "user, user, assistant": {"messages": [USER, USER, ANSWER]},
    "weight is 0 or 1": {"messages": [USER, {**ANSWER, "weight": 0.5}]},
    "no answer counts": {"messages": [USER, {**ANSWER, "weight": 0}]},
    "calls of tools": {"messages": [USER, {**ANSWER, "tool_calls": [{}]}]},
    "nobody is called 'bing'": {"conversations": [{"from": "bing", "value": "x"}]},
    "are the same": {"prompt": "Hi", "chosen": "Yes", "rejected": "Yes"},
    "rejected answer is empty": {"prompt": "Hi", "chosen": "Yes", "rejected": ""},
    "different prompts": {"chosen": [USER, ANSWER], "rejected": [ANSWER, ANSWER]},
    "one message of the assistant": {"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": "No"},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_wrong_line_is_named_and_the_others_are_read(tmp_path: Path, reason: str) -> None:
    rows, problems = read_rows(written(tmp_path, CHAT, "", BAD[reason], CHAT))
    assert [row.line for row in rows] == [1, 4]
    assert [problem.line for problem in problems] == [3]
    assert reason in problems[0].reason
