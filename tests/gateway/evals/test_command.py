"""`glassgate eval`: what it prints, and how it fails. A whole run is walked in tests/walks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.commands.evals import evals, prices_of
from gateway.config_file import parse
from gateway.evals.definition import Eval
from gateway.evals.graders import Exact
from gateway.evals.runs import Item, put_item, start_run
from gateway.store import Store

EVAL = """
name = "e"
cases = "cases.jsonl"
[targets.a]
model = "m"
[graders.exact]
kind = "exact"
"""
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, store: Store) -> Run:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\nurl = "{store.engine.url}"\n')
    (tmp_path / "eval.toml").write_text(EVAL)
    case = {"id": "1", "question": "?", "expected": ["y"]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case))

    def invoke(*words: str, ok: bool = True) -> Result:
        result = CliRunner().invoke(evals, [*words, "--config", str(config)])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return invoke


def keep(store: Store, it: Eval, scores: dict[str, list[float]]) -> str:
    """The id of a run with these scores by target, one for each case."""
    with store.begin(write=True) as connection:
        made = start_run(connection, it, {}, {})
        for target, values in scores.items():
            for case, value in zip(it.cases, values, strict=True):
                item = Item(target=target, case=case.id, sample=0, scores={"contains": value})
                put_item(connection, made.id, item)
    return made.id


def test_two_runs_are_compared_on_the_cases_that_they_share(
    run: Run, store: Store, capitals: Eval
) -> None:
    changed = msgspec.structs.replace(capitals.cases[1], question="Another?")
    later = msgspec.structs.replace(capitals, cases=(capitals.cases[0], changed))
    before = keep(store, capitals, {"old": [0, 1], "new": [1, 1]})
    after = keep(store, later, {"old": [1, 0], "new": [1, 0]})
    shown = run("compare", f"{before}/old", f"{after}/old", "--format", "json").stdout
    [total, _] = json.loads(shown)
    assert (total["cases"], total["before"], total["after"]) == ("1", "0.000", "1.000")
    assert total["says"] == "cannot tell"
    assert "new" not in shown


def test_only_what_is_graded_alike_is_compared(run: Run, store: Store, capitals: Eval) -> None:
    before = keep(store, capitals, {"old": [0, 1], "new": [0, 1]})
    contains = msgspec.structs.replace(capitals.graders["contains"], weight=50.0)
    more = {"contains": contains, "exact": msgspec.convert({"kind": "exact"}, Exact)}
    after = keep(store, msgspec.structs.replace(capitals, graders=more), {"old": [0, 1]})
    found = run("compare", f"{before}/old", f"{after}/old", "--format", "json")
    assert [it["by"] for it in json.loads(found.stdout)] == ["score", "contains", "#s"]
    assert "2 of 3 graders left out" in found.stderr
    other = msgspec.structs.replace(capitals, graders={"exact": more["exact"]})
    last = keep(store, other, {"old": [0, 1]})
    text = run("compare", f"{before}/old", f"{last}/old", ok=False).stderr
    assert "no case that both answered" in text


def test_a_target_must_be_clear(run: Run, store: Store, capitals: Eval) -> None:
    name = keep(store, capitals, {"old": [0, 1], "new": [1, 1]})
    assert "says" in run("compare", name).stdout
    text = run("compare", f"{name}/blue", name, ok=False).stderr
    assert f"{name}/old, {name}/new" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("report", "nope"), "there is no run 'nope'"),
        (("compare", "nope"), "there is no run 'nope'"),
        (("spread", "nope"), "there is no run 'nope'"),
    ],
)
def test_a_run_that_is_not_there(run: Run, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in run(*words, ok=False).stderr


def test_spread(run: Run, store: Store, capitals: Eval) -> None:
    formats = {"task": {"instruction": "?", "inputs": [], "output": "o"}, "count": 2}
    tree = msgspec.to_builtins(capitals) | {"formats": formats}
    scores: dict[str, list[float]] = {
        "old#0": [0, 0],
        "old#1": [1, 1],
        "new#0": [1, 0],
        "new#1": [1, 0],
    }
    name = keep(store, msgspec.convert(tree, Eval), scores)
    [old, _] = json.loads(run("spread", name, "--format", "json").stdout)
    assert (old["target"], old["worst"], old["best"]) == ("old", "0.000", "1.000")
    assert old["where it won"] == "1.000"


def test_spread_needs_formats(run: Run, store: Store, capitals: Eval) -> None:
    name = keep(store, capitals, {"old": [0, 1], "new": [1, 1]})
    assert "has no formats" in run("spread", name, ok=False).stderr


def test_a_gateway_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    url = ("--url", "http://127.0.0.1:1")
    text = run("run", str(tmp_path / "eval.toml"), *url, ok=False).stderr
    assert text.startswith("Error: the gateway does not answer: Cannot connect to host 127.0.0.1")


def test_a_wrong_file_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "eval.toml"
    path.write_text(EVAL + "colour = 1\n")
    assert "colour" in run("run", str(path), ok=False).stderr


def test_prices_are_the_releases(run: Run) -> None:
    tree: dict[str, Any] = {
        "upstreams": {"u": {"base_url": "http://x/v1", "model": "m", "prices": [{"prompt": 2}]}},
        "families": {"f": {"labels": {"production": "f-1"}}},
        "releases": {"f-1": {"family": "f", "upstream": "u"}},
    }
    price_of = prices_of(parse(tree))
    assert price_of("f-1", 10, 0, 5) == 20_000
    assert price_of("theirs", 10, 0, 5) == 0
