"""An eval against a real gateway: killed in the middle, gone on with, compared, reported."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NUM_CASES = 20
CONFIG = """
[upstreams.old]
base_url = "http://127.0.0.1:{port}/v1"
model = "old"
prices = [{{ prompt = 1, completion = 2 }}]
[upstreams.new]
base_url = "http://127.0.0.1:{port}/v1"
model = "new"
[families.town]
labels = {{ production = "town-1" }}
[releases.town-1]
family = "town"
upstream = "old"
[releases.town-2]
family = "town"
upstream = "new"
"""
EVAL = """
name = "walk"
cases = "cases.jsonl"
[targets.old]
model = "town"
[targets.new]
model = "town@town-2"
[graders.exact]
kind = "exact"
[comparison]
baseline = "old"
candidate = "new"
"""


class Scripted(ThreadingHTTPServer):
    """An upstream: "new" repeats the question's number, "old" does so for every third. It holds
    what comes after `holds_from` requests until it is let go."""

    holds_from = 12

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.is_held = threading.Event()
        self.go = threading.Event()

    def answer(self, body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        self.asked.append((body["model"], text))
        if len(self.asked) > self.holds_from:
            self.is_held.set()
            self.go.wait(60)
        is_right = body["model"] == "new" or int(text) % 3 == 0
        return str(text) if is_right else "no idea"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": "assistant", "content": self.server.answer(body)}
        answer = {
            "id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }  # fmt: skip
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_run_kill_go_on_compare_report(
    upstream: Scripted,
    write_config: Callable[[str], Path],
    gateway: Callable[[Path, int], Any],
    new_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    config = write_config(CONFIG.format(port=upstream.server_address[1]))
    url = gateway(config, new_port()).url
    (tmp_path / "eval.toml").write_text(EVAL)
    cases = [{"id": f"c{i}", "question": str(i), "expected": [str(i)]} for i in range(NUM_CASES)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(it) + "\n" for it in cases))

    def command(*words: str) -> list[str]:
        return [sys.executable, "-m", "gateway", "eval", *words, "--config", str(config)]

    def said(*words: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command(*words), check=False, env=env, cwd=tmp_path, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run = ("run", str(tmp_path / "eval.toml"), "--url", url)
    first = subprocess.Popen(command(*run), cwd=ROOT, stderr=subprocess.DEVNULL)
    assert upstream.is_held.wait(60)
    first.kill()
    first.wait()
    [before] = json.loads(said("list", "--format", "json"))
    assert 0 < before["items"] < 2 * NUM_CASES
    assert before["finished_at"] is None
    upstream.go.set()

    name = said(*run)
    [after] = json.loads(said("list", "--format", "json"))
    assert (name, after["items"]) == (before["id"], 2 * NUM_CASES)
    assert after["finished_at"] is not None
    # What was kept is not asked again; what was under way when it was killed may be.
    assert 2 * NUM_CASES <= len(upstream.asked) <= 2 * NUM_CASES + 4

    total, exact = json.loads(said("compare", name, "--format", "json"))
    assert (total["says"], exact["before"], exact["after"]) == ("better", "0.350", "1.000")
    back = json.loads(said("compare", f"{name}/new", f"{name}/old", "--format", "json"))
    assert back[0]["says"] == "worse"

    page = Path(tmp_path / said("report", name)).read_text()
    assert "new against old" in page
    assert "2e-05" in page  # dollars a case: 10 tokens at 1 and 5 at 2 a million
