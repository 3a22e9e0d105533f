"""`glassgate prompts`: what it shows of a version, and where it points a label."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.commands.prompts import prompts
from gateway.store import Store

CONFIG = """
[upstreams.up]
base_url = "http://127.0.0.1:1/v1"
model = "m"
[families.town]
labels = { production = "town-1" }
[releases.town-1]
family = "town"
upstream = "up"
[store]
url = "sqlite:///%s/store.db"
"""
JUDGE = """---
id: judge
version: {version}
inputs: {{text: {{type: string}}}}
examples: [{{user: Lovely., assistant: good}}]
output: Say good or bad.
---
system:
You judge.{extra} {{{{ output }}}}
{{{{ examples }}}}
user:
{{{{ context }}}} {{{{ text }}}}
"""
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "gateway.toml").write_text(CONFIG % tmp_path)
    (tmp_path / "prompts").mkdir()
    for version, extra in (("1", ""), ("2", " Be brief.")):
        text = JUDGE.format(version=version, extra=extra)
        (tmp_path / "prompts" / f"judge-{version}.md").write_text(text)

    def invoke(line: str, *more: str, ok: bool = True) -> Result:
        words = [*line.split(), *more, "--config", str(tmp_path / "gateway.toml")]
        result = CliRunner().invoke(prompts, words)
        assert (result.exit_code == 0) == ok, result.output
        return result

    return invoke


def listed(run: Run) -> Any:
    return {row["version"]: row["labels"] for row in json.loads(run("list --format json").stdout)}


def test_a_label_moves_and_comes_back(run: Run, tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path}/store.db").close()
    assert listed(run) == {"1": [], "2": []}
    assert "nothing → 1" in run("label judge@1 --why first").stdout
    assert "1 → 2" in run("label judge@2 --why better").stdout
    assert listed(run) == {"1": [], "2": ["production"]}
    assert "back to 1" in run("rollback judge --why worse").stdout
    assert listed(run) == {"1": ["production"], "2": []}
    assert "there is no prompt 'judge@3'" in run("label judge@3 --why x", ok=False).output


def test_show_and_diff(run: Run, tmp_path: Path) -> None:
    assert run("show judge@1").stdout == (tmp_path / "prompts" / "judge-1.md").read_text()
    lines = run("diff judge@1 judge@2").stdout.splitlines()
    assert "-You judge. {{ output }}" in lines
    assert "+You judge. Be brief. {{ output }}" in lines
    assert "judge@1, judge@2" in run("show judge@9", ok=False).output


def test_render_shows_every_part_and_its_size(run: Run, tmp_path: Path) -> None:
    (tmp_path / "passages").write_text("[1] Fine.")
    shown = run("render judge@2", "--var", "text=So so", "--context", str(tmp_path / "passages"))
    assert "user:\n[1] Fine. So so\n" in shown.stdout
    table = shown.stdout[shown.stdout.index("part") :].splitlines()
    assert [line.split() for line in table] == [
        ["part", "bytes"],
        ["system", str(len("You judge. Be brief."))],
        ["context", "9"],
        ["examples", "11"],
        ["question", "0"],
        ["inputs", "5"],
        ["output", "16"],
    ]
    assert "prompt.variables.text" in run("render judge@1", ok=False).output
