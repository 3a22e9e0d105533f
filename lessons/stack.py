"""A running Glassgate for the lessons on production: gateway, model server and all, on free ports.

The model is the tiny random llama, which needs no download and means nothing: these lessons ask
what happens to requests, not what is answered.
"""

# ruff: noqa: S310, S603 - the programs and addresses are this project's own

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0

COMMON = """
[server]
port = {port}
[store]
url = "sqlite:///{folder}/store.db"
journal = "{folder}/journal"
"""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any
    seconds: float


@dataclass(frozen=True)
class Stack:
    """Where it answers, the config that its commands read, and where its upstream is."""

    url: str
    config: Path
    upstream: str

    def ask(self, family: str, text: str = "hello", **fields: Any) -> Reply:
        body = {"model": family, "max_tokens": 8, **fields}
        body["messages"] = [{"role": "user", "content": text}]
        return post(f"{self.url}/v1/chat/completions", body)

    def release(self, family: str) -> str:
        """Which release answers now: asked past the answer cache."""
        reply = self.ask(family, cache={"no_store": True, "no_cache": True})
        return reply.headers.get("x-glassgate-release", "")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE_S) as reply:
            families = text_string_to_metric_families(reply.read().decode())
        samples = (sample for family in families for sample in family.samples)
        return sum(
            it.value for it in samples if it.name == name and labels.items() <= it.labels.items()
        )

    def until(self, is_so: Callable[[], object]) -> None:
        """Wait for a change to be in force, which takes a second at most."""
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > end:
                raise RuntimeError("the change never came into force")

    def command(self, *words: str) -> str:
        """What `glassgate …` prints, run beside the gateway."""
        line = [sys.executable, "-m", "gateway", *words, "--config", str(self.config)]
        return subprocess.run(line, env=_env(), check=True, capture_output=True, text=True).stdout


def post(url: str, body: dict[str, Any]) -> Reply:
    """Errors are replies too."""
    data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    started = time.perf_counter()
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        said = reply.read()
    seconds = time.perf_counter() - started
    return Reply(reply.status, dict(reply.headers.items()), json.loads(said), seconds)


@contextmanager
def running(config: str, upstream: tuple[str, ...] = ()) -> Iterator[Stack]:
    """A gateway with this config. `{upstream}` in it is where the module `upstream` listens, which
    is started with its words; a [local] section starts a model server, on `{model_port}`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, model_port, upstream_port = _free_ports(3)
        where = f"http://127.0.0.1:{upstream_port}"
        text = (COMMON + config).format(
            port=port, model_port=model_port, upstream=where, folder=folder
        )
        (folder / "gateway.toml").write_text(text)
        if upstream:
            _start(stack, [*upstream, "--port", str(upstream_port)], f"{where}/v1/models")
        command = "serve" if "[local]" in config else "gateway"
        words = ["gateway", command, "--config", str(folder / "gateway.toml")]
        url = f"http://127.0.0.1:{port}"
        _start(stack, words, f"{url}/health/ready")
        yield Stack(url, folder / "gateway.toml", where)


def _start(stack: ExitStack, words: list[str], health: str) -> None:
    """`python -m WORDS`, until it answers; it ends with the stack."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=_env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(health, timeout=PATIENCE_S).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{' '.join(words)} does not answer")


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(it.getsockname()[1]) for it in taken]
    for it in taken:
        it.close()
    return ports
