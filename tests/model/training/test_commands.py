"""The commands from a file to a folder that serves, on networks that need no download."""

import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from model.__main__ import main
from model.training import tiny
from model.training.loop import STATE
from model.weights import load_llama
from model.weights.adapter import load_adapter


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


CHATS = [{"instruction": f"Say {n}", "output": f"{n}!"} for n in range(6)]
PREFERENCES = [{"prompt": f"Say {n}", "chosen": f"{n}!", "rejected": "No."} for n in range(6)]


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_finetune_makes_an_adapter_and_tells_how_to_offer_it(tmp_path: Path, method: str) -> None:
    rows = [*(CHATS if method == "sft" else PREFERENCES), {"bad": 1}]
    file, out = written(tmp_path / "rows.jsonl", *rows), tmp_path / "talker"
    options = ["--method", method, "--model", "tiny-random", "--out", out, "--epochs", 2]
    options += ["--batch-size", 3, "--learning-rate", 0.01, "--test", file]
    done = run("finetune", file, *options)
    assert done.exit_code == 0, done.output
    assert done.output.count(f"left out of {file}: line 7: no known form: it has bad") == 1
    assert re.search(r"loss \d+\.\d+ → \d+\.\d+, \d+ tok/s", done.output)
    _, _, lines = done.output.partition("to the config:\n")
    config = tomllib.loads(f"[local]\nport = 1\n{lines}")
    assert config["local"] == {"port": 1, "loras": {"talker": str(out)}}
    assert config["releases"]["talker"] == {"family": "tiny-random", "upstream": "talker"}
    before, after = map(float, re.findall(r"(\d+\.\d+) (?:before|after)", done.output))
    assert after < before
    adapter = load_adapter(out, load_llama("tiny-random").network.config)
    assert adapter.rank == 8
    assert (out / "run" / STATE).exists()
    assert run("finetune", file, *options).exit_code == 0  # there is nothing left to do
    other = run("finetune", file, *options, "--rank", 4)
    assert other.exit_code == 1
    assert "holds another run" in other.output


def test_preferences_go_on_from_an_adapter_which_is_their_base(tmp_path: Path) -> None:
    chats = written(tmp_path / "chats.jsonl", *CHATS)
    pairs = written(tmp_path / "pairs.jsonl", *PREFERENCES)
    model = ["--model", "tiny-random", "--learning-rate", 0.01]
    first = run("finetune", chats, *model, "--out", tmp_path / "sft", "--test", chats)
    words = [pairs, *model, "--method", "dpo", "--start", tmp_path / "sft", "--test", pairs]
    second = run("finetune", *words, "--out", tmp_path / "dpo")
    assert "loss 0.693 → " in second.output, second.output
    (_, learnt), (kept, _) = (
        re.findall(r"(\d+\.\d+) (?:before|after)", it.output) for it in (first, second)
    )
    assert learnt == kept  # the chosen answers are what the chats say
    other = run("finetune", *words, "--out", tmp_path / "other", "--rank", 4)
    assert other.exit_code == 1
    assert "has --rank 8 --alpha 16.0, which must be said here too" in other.output


def test_a_file_without_a_fitting_row_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", *PREFERENCES)
    done = run("finetune", file, "--model", "tiny-random", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no row can be trained on" in done.output
    assert "line 1: is a preference: use --method dpo" in done.output


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (("--learning-rate", "nan"), "nan is no number"),
        (("--learning-rate", "0"), "0.0 is not in the range"),
        (("--epochs", "inf"), "inf is no number"),
        (("--epochs", "0"), "0.0 is not in the range"),
        (("--alpha", "0"), "0.0 is not in the range"),
        (("--beta", "0.2"), "--beta is of --method dpo"),
        (("--out", "/proc/nope"), "/proc/nope"),
    ],
)
def test_what_trains_nothing_is_refused(
    tmp_path: Path, option: tuple[str, str], complaint: str
) -> None:
    file = written(tmp_path / "rows.jsonl", *CHATS)
    words = ["--model", "tiny-random", "--out", tmp_path / "out", *option]
    done = run("finetune", file, *words)
    assert done.exit_code in (1, 2)
    assert complaint in done.output
    assert isinstance(done.exception, SystemExit)
    assert not (tmp_path / "out").exists()


def test_a_network_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", *CHATS)
    words = ["--model", "tiny-random", "--out", tmp_path / "out", "--learning-rate", "1e39"]
    with np.errstate(over="ignore", invalid="ignore"):
        done = run("finetune", file, *words, "--epochs", 1)
    assert done.exit_code == 1
    assert "lower the learning rate" in done.output
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_data_check_reports_and_cleans(tmp_path: Path) -> None:
    rows = [*CHATS, CHATS[0], {"bad": 1}, {"instruction": "Mail?", "output": "a@b.example"}]
    file, clean = written(tmp_path / "rows.jsonl", *rows), tmp_path / "clean.jsonl"
    done = run("data", "check", file, "--clean", clean, "--split", 0.5)
    assert done.exit_code == 1
    assert "line 7: repeats line 1" in done.output
    assert "line 8: no known form: it has bad" in done.output
    assert "line 9: holds an e-mail address" in done.output
    sizes = [len(p.read_text().splitlines()) for p in (clean, tmp_path / "clean.test.jsonl")]
    assert sizes == [3, 3]
    assert run("data", "check", clean).exit_code == 0


def test_data_check_tells_of_a_test_that_cannot_be_read(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", *CHATS)
    test = written(tmp_path / "test.jsonl", {"bad": 1})
    done = run("data", "check", file, "--test", test)
    assert done.exit_code == 1
    assert f"{test}: line 1: no known form" in done.output
    assert "--split goes with --clean" in run("data", "check", file, "--split", 0.5).output


def test_tiny_is_made_by_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.Recipe.read()
    sizes = {**recipe.values["sizes"], "hidden_size": 32, "num_layers": 1, "vocab_size": 300,
             "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}  # fmt: skip
    values = {**recipe.values, "sizes": sizes, "num_steps": 3, "conversations_per_step": 4}
    monkeypatch.setattr(tiny.Recipe, "read", lambda: tiny.Recipe(values, recipe.words))
    monkeypatch.setattr(tiny, "TOKENIZER_TEXTS", 50)
    monkeypatch.setattr(tiny, "HELD_OUT_TEXTS", 5)
    monkeypatch.setattr(tiny, "SCORED", 1)
    done = run("train", "tiny", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert '"perplexity": ' in done.output
    checkpoint = load_llama(str(tmp_path))
    assert checkpoint.network.config.num_layers == 1
    assert checkpoint.stop_ids == {1}


def test_ctrl_c_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    file, state = written(tmp_path / "rows.jsonl", *CHATS), tmp_path / "out" / "run" / STATE
    words = [file, "--model", "tiny-random", "--out", tmp_path / "out", "--epochs", "100000"]
    command = [sys.executable, "-m", "model", "finetune", *words, "--save-every", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    run = subprocess.Popen(command, text=True, **pipes)
    signal.signal(signal.SIGINT, before)
    while not state.exists():
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    with np.load(state) as kept:
        assert f"the same command goes on after step {kept['step']}, the last" in said
        assert kept["step"] >= 1
