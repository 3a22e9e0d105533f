"""From a file of examples to the release that answers, by the command line alone, and back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.walks.conftest import ROOT, Serving, free_port

SUMS = [(a, b) for a in range(2, 11) for b in range(2, 11)]
REPLAYED = {
    "What is the capital of Kenya?": "The capital of Kenya is Nairobi.",
    "Repeat: red dog reads": "red dog reads",
    "Write as JSON: Ben is 9 years old.": '{"name": "Ben", "age": 9}',
    "What does a sheep say?": "A sheep says baa.",
}
KEPT = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Repeat: blue cat sings": "blue cat sings",
    "Write as JSON: Anna is 7 years old.": '{"name": "Anna", "age": 7}',
    "What does a dog say?": "A dog says woof.",
}
ANSWERED = {f"Say: {it} drum": False for it in ("blue", "red", "green")}
REFUSED = {f"What is the capital of {it}?": True for it in ("Ramelzu", "Quelmira", "Velkozan")}
EVAL = """
name = "shouted sums"
cases = ["target.jsonl", "kept.jsonl"]
[targets.base]
model = "tiny@tiny-1"
body = { temperature = 0, max_tokens = 24 }
[targets.tuned]
model = "tiny@shout"
body = { temperature = 0, max_tokens = 24 }
[graders.shouts]
kind = "regex"
[graders.exact]
kind = "exact"
[graders.refusal]
kind = "refusal"
[comparison]
baseline = "base"
candidate = "tuned"
"""


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sets(folder: Path) -> None:
    """Two of three sums to learn that one shouts, and a few old answers; the rest to be asked."""
    learnt = {f"What is {a} + {b}?": f"{a} + {b} = {a + b}!" for a, b in SUMS if (a + b) % 3}
    turns = ((("user", asked), ("assistant", said)) for asked, said in (learnt | REPLAYED).items())
    write(folder / "chats.jsonl", *(
        {"messages": [{"role": role, "content": text} for role, text in it]} for it in turns
    ))  # fmt: skip
    write(folder / "target.jsonl", *(
        {"id": f"{a}+{b}", "question": f"What is {a} + {b}?", "pattern": rf"= {a + b}!$",
         "tags": ["target"]}
        for a, b in SUMS if not (a + b) % 3
    ))  # fmt: skip
    write(folder / "kept.jsonl", *(
        {"id": asked, "question": asked, "expected": [said], "tags": ["retention"]}
        for asked, said in KEPT.items()
    ), *(
        {"id": asked, "question": asked, "refuse": refuse, "tags": ["safety"]}
        for asked, refuse in (REFUSED | ANSWERED).items()
    ))  # fmt: skip
    (folder / "eval.toml").write_text(EVAL)


@pytest.fixture
def say(tmp_path: Path) -> Callable[..., str]:
    """`say("eval", "list", …)`: what that command of glassgate prints, in the walk's folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLASSGATE_CONFIG": "gateway.toml"}

    def said(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *words], check=False, env=env, cwd=tmp_path,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return said


@pytest.fixture
def tuned(tmp_path: Path, say: Callable[..., str]) -> str:
    """The adapter is made; what the command says of it is in the config."""
    write_sets(tmp_path)
    say("data", "check", "chats.jsonl")
    words = ["--model", "tiny", "--out", "shout", "--epochs", "4", "--learning-rate", "5e-3"]
    printed = say("finetune", "chats.jsonl", *words, "--threads", "1")
    base = (ROOT / "ops" / "tiny" / "gateway.toml").read_text()
    store = f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\njournal = "{tmp_path}/journal"\n'
    _, _, lines = printed.partition("to the config:\n")
    (tmp_path / "gateway.toml").write_text(f"{base}\n{store}\n{lines}")
    return printed


@pytest.fixture
def stack(tmp_path: Path, tuned: str, wait_until: Callable[..., Any]) -> Iterator[Serving]:
    port = free_port()
    words = ["--config", "gateway.toml", "--port", str(port), "--model-port", str(free_port())]
    it = Serving(["serve", *words], port, tmp_path)
    try:
        wait_until(it.is_ready, "ready")
        yield it
    finally:
        it.stop()


def test_from_examples_to_the_release_that_answers_and_back(
    tuned: str, stack: Serving, say: Callable[..., str], wait_until: Callable[..., Any]
) -> None:
    def answer() -> tuple[str, str]:
        messages = [{"role": "user", "content": "What is 2 + 4?"}]
        body = {"model": "tiny", "messages": messages, "temperature": 0}
        reply = httpx2.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60)
        text = reply.json()["choices"][0]["message"]["content"]
        return reply.headers["x-glassgate-release"], text

    def shares() -> dict[str, float]:
        rows = json.loads(say("releases", "list", "--format", "json"))
        return {it["release"]: it["share"] for it in rows}

    assert shares() == {"tiny-1": 1, "shout": 0}
    assert answer() == ("tiny-1", "2 + 4 = 6")

    run = say("eval", "run", "eval.toml", "--url", stack.url).strip()
    verdicts = {it["by"]: it for it in json.loads(say("eval", "compare", run, "--format", "json"))}
    assert verdicts["#target"]["says"] == "better", verdicts
    assert (verdicts["#target"]["before"], verdicts["#target"]["cases"]) == ("0.000", "27")
    assert verdicts["#retention"]["says"] == verdicts["#safety"]["says"] == "cannot tell"

    assert "tiny-1 → shout" in say("releases", "promote", "tiny", "shout", "--why", run)
    wait_until(lambda: answer() == ("shout", "2 + 4 = 6!"), "the new release answers")
    assert shares() == {"tiny-1": 0, "shout": 1}
    assert "back to tiny-1" in say("releases", "rollback", "tiny", "--why", "it is too loud")
    wait_until(lambda: answer() == ("tiny-1", "2 + 4 = 6"), "the old one answers again")
