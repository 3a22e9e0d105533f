"""An outside judge grades the gateway as a client: llmock breaks its answers and reads how we cope.

Both run as processes of their own. Every case has an upstream of its own, lest one case opens the
breaker for the next.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

IDLE_S = 0.5


def fail(status: int, times: int | None = 1, **more: Any) -> dict[str, Any]:
    return {"type": "fail", "status": status, "times": times, **more}


def midway(kind: str, times: int | None = 1) -> dict[str, Any]:
    fault = {"type": "stream_fault", "kind": kind, "after_chunks": 4, "times": times}
    return fault | {"stall_seconds": 3 * IDLE_S, "match": {"stream": True}}


# name: the family's policy, what goes wrong, is it answered all the same
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "rate-limit": ("hold", fail(429, 2, retry_after=0.3), True),
    "error-500": ("hold", fail(500, 2), True),
    "error-503": ("hold", fail(503, 1, retry_after=0.3), True),
    "error-529": ("hold", fail(529, 2), True),
    "timeout-408": ("hold", fail(408), True),
    "outage": ("hold", fail(503, None), False),
    "limited-forever": ("hold", fail(429, None, retry_after=0.3), False),
    "limited-for-long": ("hold", fail(429, None, retry_after=30), False),
    **{f"refused-{status}": ("hold", fail(status), False) for status in (400, 401, 403, 404, 422)},
    "too-long": ("hold", fail(400, code="context_length_exceeded"), False),
    "delay": ("hold", {"type": "delay", "seconds": 0.2}, True),
    "slow-first-token": ("hold", {"type": "slow_first_token", "seconds": 0.2}, True),
    "disconnect": ("hold", midway("disconnect"), True),
    "truncate": ("hold", midway("truncate"), True),
    "malformed": ("hold", midway("malformed"), True),
    "stall": ("hold", midway("stall"), False),
    "error-disconnect": ("error", midway("disconnect"), False),
    "error-malformed": ("error", midway("malformed"), False),
    "error-stall": ("error", midway("stall"), False),
}


WAYS = [
    (name, stream)
    for name, (_, fault, _) in CASES.items()
    for stream in (True, False)
    if stream or fault["type"] != "stream_fault"
]


def family(name: str, stream: bool) -> str:
    return f"{name}-{'streamed' if stream else 'plain'}"


def config(judge: str, folder: Path) -> str:
    """One family, release and upstream for each case and way to ask."""
    lines = [f'[store]\nurl = "sqlite:///{folder}/store.db"\njournal = "{folder}/journal"']
    for name, recovery in [(family(*way), CASES[way[0]][0]) for way in WAYS]:
        lines += [
            f'[upstreams.{name}]\nbase_url = "{judge}/v1"\nmodel = "gpt-{name}"',
            f"deadlines = {{ idle = {IDLE_S} }}",
            f'[families.{name}]\nlabels = {{ production = "{name}-1" }}',
            f'stream_recovery = "{recovery}"',
            f'[releases.{name}-1]\nfamily = "{name}"\nupstream = "{name}"',
        ]
    return "\n".join(lines)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "it ended at once"
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"{url} does not answer")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def started(health: str, *command: str) -> Iterator[str]:
    """The URL of `python -m COMMAND --port …` while it runs."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(url + health, process)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    yield from started("/health", "llmock.cli", "serve")


@pytest.fixture(scope="module")
def gateway(judge: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gateway")
    path = folder / "gateway.toml"
    path.write_text(config(judge, folder))
    yield from started("/health/live", "gateway", "gateway", "--config", str(path))


def ask(gateway: str, model: str, stream: bool) -> tuple[int, bytes]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Say something about the weather in Paris."}],
        "stream": stream,
    }
    reply = httpx2.post(f"{gateway}/v1/chat/completions", json=body, timeout=60)
    return reply.status_code, reply.content


def is_whole(status: int, answer: bytes, stream: bool) -> bool:
    if status != 200:
        return False
    if stream:
        return b'"finish_reason":"stop"' in answer and answer.endswith(b"data: [DONE]\n\n")
    return json.loads(answer)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("name", "stream"), WAYS)
def test_verdict(name: str, stream: bool, gateway: str, judge: str) -> None:
    recovery, behaviour, is_answered = CASES[name]
    httpx2.post(f"{judge}/_llmock/reset").raise_for_status()
    scenario = {"behaviors": [behaviour]}
    httpx2.post(f"{judge}/_llmock/scenario", json=scenario).raise_for_status()
    status, answer = ask(gateway, family(name, stream), stream)
    verdict = httpx2.get(f"{judge}/_llmock/verdict").json()
    assert verdict["passed"], verdict
    assert verdict["attempts"] >= 1
    assert is_whole(status, answer, stream) == is_answered
    assert b"[DONE]" not in answer or is_answered
    if recovery == "error":
        assert b'"error"' in answer
