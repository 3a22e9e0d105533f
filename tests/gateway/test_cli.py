"""The command line: what is refused before anything listens, and the talk in a terminal."""

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway import cli, terminal
from gateway.cli import main
from gateway.config_file import Loaded

TOWN = """
[upstreams.up]
base_url = "http://127.0.0.1:1/v1"
model = "m"
[families.town]
labels = { production = "town-1" }
[releases.town-1]
family = "town"
upstream = "up"
"""


def config(folder: Path, extra: str = "") -> str:
    path = folder / "gateway.toml"
    store = f'[store]\nurl = "sqlite:///{folder}/store.db"\njournal = "{folder}/journal"\n'
    path.write_text(store + TOWN + extra)
    return str(path)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, words)
    return result.exit_code, result.output


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    code, said = run("gateway", "--config", config(tmp_path, "[nonsense]"))
    assert (code, said) == (1, "Error: nonsense: unknown section\n")


def test_without_a_key_it_stays_on_loopback(tmp_path: Path) -> None:
    code, said = run("gateway", "--config", config(tmp_path), "--host", "0.0.0.0", "--port", "0")
    assert code == 1
    assert said.startswith("Error: server.host: ")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = run("gateway", "--config", config(tmp_path), "--port", port)
    assert code == 1
    assert f"127.0.0.1:{port}" in said


def test_a_port_that_is_none_is_named(tmp_path: Path) -> None:
    code, said = run("gateway", "--config", config(tmp_path), "--port", "99999")
    assert code == 1
    assert said.startswith("Error: server.port: ")


def test_serve_pulls_first_and_stops_where_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    class Done:
        returncode = 4

    def record(words: list[str], check: bool) -> Done:
        asked.append(words[1:])
        return Done()

    monkeypatch.setattr(cli.subprocess, "run", record)
    code, _ = run("serve", "--config", config(tmp_path, "[local]\n"))
    assert code == 4
    assert asked == [["-m", "model", "pull", "smollm2", "minilm"]]
    code, _ = run("serve", "--config", config(tmp_path, "[nonsense]\n"))
    assert (code, len(asked)) == (1, 1)


def test_an_emulated_machine_needs_no_weights_and_has_a_store_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Loaded] = []
    monkeypatch.setattr("gateway.serve.serve", lambda loaded, *_: seen.append(loaded))
    monkeypatch.setattr(cli, "_pull", lambda *_: pytest.fail("nothing is to be pulled"))
    own = tmp_path / "own.toml"
    own.write_text("name = 'mine'")
    assert run("serve", "--emulate")[0] == run("serve", "--emulate", str(own))[0] == 0
    code, _ = run("serve", "--emulate", "--config", config(tmp_path, "[local]\n"))
    assert code == 0
    shipped, mine, elsewhere = (it.config for it in seen)
    assert shipped.local is not None
    assert Path(shipped.local.profile).name == "h100-llama-8b.toml"
    assert shipped.store.url == "sqlite:///var/emulated.db"
    assert mine.local is not None
    assert mine.local.profile == str(own)
    assert elsewhere.store.url == f"sqlite:///{tmp_path}/store.db"


def test_every_command_has_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_on: list[str] = []
    monkeypatch.setattr(cli.os, "execv", lambda _, words: handed_on.extend(words[2:]))
    for name in main.commands:
        code, said = run(name, "--help")
        assert code == 0
        assert "Usage" in said or handed_on[-3:] == ["model", handed_on[-2], "--help"]


class Said(terminal.Client):
    """Answers without a gateway."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def answer(self, model: str, messages: list[dict[str, str]]) -> Any:
        self.asked.append([f"{it['role']}: {it['content']}" for it in messages])
        for piece in self.answers.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def test_a_talk_remembers_and_survives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[Any] = ["hello", KeyboardInterrupt(), " ", "and?", "well?", EOFError()]

    def read(prompt: str) -> str:
        it = typed.pop(0)
        if isinstance(it, BaseException):
            raise it
        return str(it)

    monkeypatch.setattr("builtins.input", read)
    client = Said(["Hi", " there"], ["so", KeyboardInterrupt()], [terminal.Gone("busy")])
    terminal.talk(client, "tiny")
    assert client.asked[2] == [
        "user: hello", "assistant: Hi there", "user: and?", "assistant: so", "user: well?",
    ]  # fmt: skip
    out = capsys.readouterr()
    assert out.out == "Hi there\n\nso\n\n\n"
    assert out.err == "[busy]"
