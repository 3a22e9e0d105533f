"""The command line over the store: what it prints, and how it fails."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gateway.commands import keys, releases, usage
from gateway.store import Store
from gateway.store.rows import now_ms
from gateway.store.usage import Row, post

CONFIG = """
[upstreams.up]
base_url = "http://127.0.0.1:1/v1"
model = "m"
[families.town]
labels = { production = "town-1" }
[releases.town-1]
family = "town"
upstream = "up"
[releases.town-2]
family = "town"
upstream = "up"
[store]
url = "sqlite:///%s/store.db"
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG % tmp_path)
    main = click.Group()
    for command in (
        keys.keys, keys.teams, releases.releases, releases.audit, usage.usage, usage.budgets,
    ):  # fmt: skip
        main.add_command(command)

    def invoke(line: str, *more: str, ok: bool = True) -> Result:
        result = CliRunner().invoke(main, [*line.split(), *more, "--config", str(config)])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return invoke


def rows(result: Result) -> list[dict[str, Any]]:
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_keys(run: Run) -> None:
    run("teams set search")
    made = run("keys create alice --team search --scope chat --scope pin --family town --days 2")
    text = made.stdout.strip()
    (key,) = rows(run("keys list --format json"))
    assert text.startswith(f"sk-gg-{key['id']}-")
    assert (key["scopes"], key["families"], key["state"]) == (["chat", "pin"], ["town"], "active")
    assert run(f"keys rotate {key['id']}").stdout.strip() != text
    run(f"keys revoke {key['id']}")
    table = run("keys list").stdout.splitlines()
    assert table[0].split()[:4] == ["id", "name", "team", "state"]
    assert "revoked" in table[1]
    run("teams delete search")
    assert rows(run("teams list --format json")) == []
    wrong = run("keys create bob --team nobody", ok=False)
    assert wrong.output == "Error: there is no team 'nobody'\n"


def test_releases(run: Run) -> None:
    run("releases promote town town-2 --why", "it is faster")
    listed = {it["release"]: it for it in rows(run("releases list --format json"))}
    assert listed["town-2"]["labels"] == ["production"]
    assert listed["town-1"]["rollback_of"] == ["production"]
    assert "town-1" in run("releases rollback town --why slower").stdout
    run("releases weights town town-1=3 town-2=1 --why try")
    listed = {it["release"]: it["share"] for it in rows(run("releases list --format json"))}
    assert listed == {"town-1": 0.75, "town-2": 0.25}
    told = rows(run("audit --subject town@production --format json"))
    assert [(it["action"], it["after"], it["why"]) for it in told] == [
        ("label.rollback", "town-1", "slower"),
        ("label.promote", "town-2", "it is faster"),
        ("label.promote", "town-1", ""),
    ]
    assert told[0]["actor"].startswith("cli:")
    run("releases promote town town-3 --why x", ok=False)
    run("releases promote town town-2", ok=False)
    run("releases weights town town-1 --why x", ok=False)


def test_usage_and_budgets(run: Run, tmp_path: Path) -> None:
    run("budgets set family:town month --soft 0.5 --hard 1")
    run("budgets set family:town month --hard plenty", ok=False)
    assert "no team 'zzz'" in run("budgets set team:zzz month --hard 1", ok=False).output
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    now = now_ms()
    with store.begin(write=True) as connection:
        made = [
            Row(
                id=str(n), request_id=f"r{n}", started_at=now, route="chat", family="town",
                cost=10**8, outcome=outcome,
            )
            for n, outcome in enumerate(("ok", "killed", "ok"))
        ]  # fmt: skip
        post(connection, made)
    store.close()
    (budget,) = rows(run("budgets list --format json"))
    assert budget == {
        "subject": "family:town", "period": "month", "soft": "0.5", "hard": "1", "spent": "0.3",
    }  # fmt: skip
    (line,) = csv.DictReader(io.StringIO(run("usage --by family --format csv").stdout))
    assert (line["name"], line["requests"], line["errors"], line["cost"]) == (
        "town", "3", "1", "0.3",
    )  # fmt: skip
    assert rows(run("usage --until 2000-01-01 --since 2000-01-01 --format json")) == []
    (killed,) = rows(run("usage --killed --format json"))
    assert killed["request_id"] == "r1"
    (month,) = rows(run("usage --forecast --format json"))
    assert (month["so_far"], month["low"]) == ("0.3", None)


def test_no_store_is_made_by_who_only_reads(run: Run, tmp_path: Path) -> None:
    for line in ("usage", "audit", "releases list", "keys list", "budgets list"):
        said = run(line, ok=False).output
        assert said.startswith(f"Error: there is no store at {tmp_path}/store.db: run this where")
    assert [it.name for it in tmp_path.iterdir()] == ["gateway.toml"]
    made = run("keys create ops")
    assert made.stderr == f"there was no store: made {tmp_path}/store.db\n"
    assert made.stdout.startswith("sk-gg-")
    assert run("keys create more").stderr == run("keys list").stderr == ""


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("no" * 1000)
    (tmp_path / "gateway.toml").write_text(CONFIG % tmp_path)
    args = ["list", "--config", str(tmp_path / "gateway.toml")]
    result = CliRunner().invoke(keys.keys, args)
    assert result.exit_code == 1
    assert result.output == "Error: the store cannot be opened: file is not a database\n"


def test_a_user_without_a_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    run("keys create alice")
    told, *_ = rows(run("audit --format json"))
    assert told["actor"] == f"cli:{os.getuid()}"
