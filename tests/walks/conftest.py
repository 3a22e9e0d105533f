"""Whole flows in real processes: `glassgate serve` with the tiny random llama on free ports."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 120.0

CONFIG = """
[server]
port = {port}
[local]
model = "tiny-random"
embedder = "tiny-random"
port = {model_port}
backoff_s = 0.05
[upstreams.chat]
local = "model"
[upstreams.embedder]
local = "embedder"
[families.tiny]
labels = {{ production = "tiny-1" }}
[families.embedder]
labels = {{ production = "embedder-1" }}
[releases.tiny-1]
family = "tiny"
upstream = "chat"
sampling = {{ temperature = 0 }}
default_max_tokens = 8
[releases.embedder-1]
family = "embedder"
upstream = "embedder"
[store]
url = "sqlite:///{folder}/store.db"
journal = "{folder}/journal"
{extra}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


def until(is_so: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of `is_so`; fails after a long while."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if found := is_so():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return until


class Serving:
    """A running `glassgate`: its URL, its process, the lines of its log."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *command],
            cwd=folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self.lines.append(line.rstrip())

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def model(self) -> psutil.Process:
        """The model server, which is the child."""
        children = psutil.Process(self.process.pid).children()
        return next(it for it in children if "--parent-pipe" in it.cmdline())

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return httpx2.get(f"{self.url}/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code


@contextmanager
def serving(folder: Path, extra: str) -> Iterator[Serving]:
    port = free_port()
    path = folder / "gateway.toml"
    text = CONFIG.format(port=port, model_port=free_port(), folder=folder, extra=extra)
    path.write_text(text)
    it = Serving(["serve", "--config", str(path)], port, folder)
    try:
        until(it.is_ready, "ready")
        yield it
    finally:
        if it.process.poll() is None:
            it.stop()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`with serve(extra config) as it`: a whole stack in a folder of its own."""

    def opener(extra: str = "") -> Any:
        return serving(tmp_path_factory.mktemp("serve"), extra)

    return opener


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., str]]:
    """`start(health, MODULE, *words)`: the URL of `python -m MODULE … --port FREE`, answering."""
    with ExitStack() as stack:

        def started(health: str, *command: str) -> str:
            url = f"http://127.0.0.1:{(port := free_port())}"
            words = [sys.executable, "-m", *command, "--port", str(port)]
            process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, PATIENCE_S)
            stack.callback(process.terminate)

            def answers() -> bool:
                assert process.poll() is None, f"{command} ended at once"
                try:
                    return httpx2.get(url + health, timeout=5).status_code == 200
                except httpx2.TransportError:
                    return False

            until(answers, f"{url}{health} answers")
            return url

        yield started


@pytest.fixture(scope="session")
def new_port() -> Callable[[], int]:
    return free_port


@pytest.fixture
def gateway() -> Iterator[Callable[[Path, int], Serving]]:
    """`gateway(config, port)`: a `glassgate gateway` that is ready."""
    with ExitStack() as stack:

        def started(config: Path, port: int) -> Serving:
            words = ["gateway", "--config", str(config), "--port", str(port)]
            it = Serving(words, port, config.parent)
            stack.callback(it.stop)
            until(it.is_ready, "ready")
            return it

        yield started


@pytest.fixture(scope="module")
def model_url(start: Callable[..., str]) -> str:
    """A model server alone, with the tiny random llama."""
    return start("/health", "model", "serve", "--model", "tiny-random")


@pytest.fixture(scope="module")
def write_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A config file in a folder of its own, with a store beside it."""

    def written(text: str) -> Path:
        folder = tmp_path_factory.mktemp("gateway")
        store = f'[store]\nurl = "sqlite:///{folder}/store.db"\njournal = "{folder}/journal"\n'
        (folder / "gateway.toml").write_text(text + store)
        return folder / "gateway.toml"

    return written
