"""An eval's file: what is read, and what is refused with its place."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config_file import ConfigError
from gateway.evals.definition import Eval, load

SHIPPED = sorted((Path(__file__).parents[3] / "ops" / "evals").glob("*.toml"))
HEAD = 'name = "x"\ncases = "cases.jsonl"\n[targets.a]\nmodel = "m"\n'
EXACT = '[graders.exact]\nkind = "exact"\n'
NOBODY = 'name = "x"\ncases = "cases.jsonl"\n[targets]\n'
CASE = {"id": "1", "question": "?", "expected": ["yes"]}


def only(kind: str) -> str:
    return f'[graders.it]\nkind = "{kind}"\n'


def write(folder: Path, text: str, *cases: dict[str, Any]) -> Path:
    (folder / "cases.jsonl").write_text("".join(json.dumps(it) + "\n" for it in cases))
    (folder / "eval.toml").write_text(text)
    return folder / "eval.toml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda it: it.stem)
def test_shipped_evals_can_be_read(path: Path) -> None:
    it = load(path)
    kept = msgspec.convert(msgspec.to_builtins(it), Eval)  # as the store keeps it
    assert kept == it
    assert kept.hash == it.hash


def test_cases_may_come_from_several_files(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(json.dumps({**CASE, "id": "2"}))
    text = HEAD.replace('"cases.jsonl"', '["cases.jsonl", "more.jsonl"]') + EXACT
    assert [it.id for it in load(write(tmp_path, text, CASE)).cases] == ["1", "2"]


def test_there_are_two_hundred_own_cases_of_every_kind() -> None:
    rows = [json.loads(it) for it in (SHIPPED[0].parent / "cases.jsonl").read_text().splitlines()]
    assert len(rows) >= 200
    assert len({it["id"] for it in rows}) == len(rows)
    assert {tag for it in rows for tag in it["tags"]} >= {
        "accuracy", "relevance", "coherence", "hallucination", "bias", "safety", "over-refusal",
        "format", "robustness", "edge cases", "retrieval",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cases", "complaint"),
    [
        (HEAD + EXACT + "[surprise]\n", [CASE], "surprise"),
        (HEAD + '[graders.x]\nkind = "magic"\n', [CASE], "magic"),
        (HEAD + EXACT, [CASE, CASE], "two of this id"),
        (HEAD + EXACT, [{"id": "1", "question": "?"}], "no grader takes it"),
        (HEAD + EXACT, [{**CASE, "colour": 1}], "cases.jsonl:1: "),
        (HEAD + EXACT, [], "there are none"),
        ('only = ["bias"]\n' + HEAD + EXACT, [CASE], "there are none"),
        (HEAD + EXACT + '[comparison]\nbaseline = "b"\n', [CASE], "no target 'b'"),
        (HEAD + only("schema"), [{"id": "1", "schema": {"type": "x"}}], "case 1: "),
        (HEAD + only("regex"), [{"id": "7", "pattern": "("}], "case 7: "),
        (HEAD + only("regex"), [{"id": "7", "pattern": "a{99999999999}"}], "case 7: "),
        (HEAD + only("choice"), [{"id": "5", "choices": ["a"]}], "case 5: choices"),
        (HEAD + only("choice"), [{"id": "5", "choices": ["a", ""]}], "case 5: choices"),
        ("cases = 3\n", [CASE], "eval.toml: "),
        ("cases = \n", [CASE], "eval.toml: "),
        ("", [CASE], "cases: it is not said which file"),
        (NOBODY + EXACT, [CASE], "targets: there are none"),
        (HEAD + EXACT + "weight = nan\n", [CASE], "weight"),
        (HEAD + EXACT + "weight = 0\n", [CASE], "weight"),
        (HEAD + '[graders.j]\nkind = "judge"\nmodel = "m"\nlabels = "none"\n', [CASE], "none"),
        (
            HEAD + EXACT + '[formats]\n[formats.task]\ninstruction = "?"\ninputs = ["text"]\n'
            'output = "mood"\n', [CASE], "fields of the task",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, text: str, cases: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(write(tmp_path, text, *cases))


def test_cases_are_lines_of_json_whatever_is_in_them(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + EXACT)
    text = json.dumps({**CASE, "question": "a\u2028b\x85c"}, ensure_ascii=False)
    (tmp_path / "cases.jsonl").write_text(f"\ufeff{text}\r\n", "utf-8")
    assert load(path).cases[0].question == "a\u2028b\x85c"
    (tmp_path / "cases.jsonl").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"cases\.jsonl: "):
        load(path)


def test_a_changed_case_is_another_eval(tmp_path: Path) -> None:
    before = load(write(tmp_path, HEAD + EXACT, CASE))
    after = load(write(tmp_path, HEAD + EXACT, {**CASE, "question": "!"}))
    assert before.hash != after.hash
