"""Two replicas under Ray Serve behind the gateway: one is killed under load, no request is lost."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import psutil
import pytest

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is absent"),
]

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 20.0  # for its end

SERVE = """
http_options: {{host: 127.0.0.1, port: {port}}}
applications:
  - name: model
    route_prefix: /
    import_path: model.server.ray:app
    args: {{model: tiny-random, min_replicas: 2, max_replicas: 2}}
"""

GATEWAY = """
[upstreams.ray]
base_url = "{url}/v1"
model = "tiny-random"
can_continue = true
[families.tiny]
labels = {{ production = "tiny-1" }}
stream_recovery = "continue"
[releases.tiny-1]
family = "tiny"
upstream = "ray"
sampling = {{ temperature = 0 }}
"""


@pytest.fixture
def ray_serve(
    tmp_path: Path, new_port: Callable[[], int], wait_until: Callable[..., Any]
) -> Iterator[tuple[str, int]]:
    """The URL of Ray Serve with two replicas, and its process id."""
    url = f"http://127.0.0.1:{(port := new_port())}"
    (tmp_path / "serve.yaml").write_text(SERVE.format(port=port))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(tmp_path / "serve.yaml")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "GLASSGATE_HOME": str(tmp_path)}
    with (tmp_path / "ray.log").open("wb") as log:
        serving = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert serving.poll() is None, (tmp_path / "ray.log").read_text()
            try:
                return httpx2.get(f"{url}/health", timeout=5).text == '{"status":"ok"}'
            except httpx2.TransportError:
                return False

        wait_until(answers, "Ray Serve answers")
        wait_until(lambda: len(replicas(serving.pid)) == 2, "two replicas")
        yield url, serving.pid
    finally:
        family = psutil.Process(serving.pid).children(recursive=True)
        serving.terminate()
        _, left = psutil.wait_procs([psutil.Process(serving.pid), *family], timeout=PATIENCE_S)
        for it in left:
            it.kill()
        serving.wait()


def replicas(pid: int) -> list[psutil.Process]:
    family = psutil.Process(pid).children(recursive=True)
    return [it for it in family if "ServeReplica" in " ".join(it.cmdline())]


def ask(url: str, words: str, stream: bool) -> str:
    """What became of one request: "ok", or what was wrong with it."""
    body = {"model": "tiny", "max_tokens": 40, "ignore_eos": True, "stream": stream}
    body["messages"] = [{"role": "user", "content": words}]
    try:
        reply = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    except httpx2.TransportError as error:
        return repr(error)
    is_whole = reply.status_code == 200 and "error" not in reply.text
    is_whole &= not stream or reply.text.endswith("data: [DONE]\n\n")
    return "ok" if is_whole else f"{reply.status_code} {reply.text[-300:]}"


def test_a_replica_killed_under_load_loses_no_request(
    ray_serve: tuple[str, int],
    gateway: Callable[[Path, int], Any],
    write_config: Callable[[str], Path],
    new_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> None:
    url, pid = ray_serve
    front = gateway(write_config(GATEWAY.format(url=url)), new_port())
    outcomes: list[str] = []
    is_over = Event()

    def client(number: int) -> None:
        while not is_over.is_set():
            words = f"{number} {len(outcomes)}"
            outcomes.append(ask(front.url, words, stream=bool(number % 2)))

    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(client, number) for number in range(8)]
        try:
            wait_until(lambda: len(outcomes) >= 40, "load")
            lost, stays = replicas(pid)
            lost.kill()
            so_far = len(outcomes)
            wait_until(lambda: len(outcomes) >= so_far + 80, "load after the kill")
            known = {lost.pid, stays.pid}
            wait_until(lambda: {it.pid for it in replicas(pid)} - known, "Ray replaces it")
            so_far = len(outcomes)
            wait_until(lambda: len(outcomes) >= so_far + 20, "load on two replicas again")
        finally:
            is_over.set()
        for it in running:
            it.result()

    assert set(outcomes) == {"ok"}
    scraped = httpx2.get(f"{front.url}/metrics").text
    failed = [
        line
        for line in scraped.splitlines()
        if line.startswith("glassgate_attempts_total") and 'outcome="ok"' not in line
    ]
    assert failed, "the kill was felt, and repaired"
