"""The stack that a scenario names, in processes of its own on ports of its own.

Everything lies in one folder that is removed afterwards; each process is ended by its id.
"""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from string import Template

from loadtests.drive import Place
from loadtests.overhead import free_port
from loadtests.scenario import FOLDER, Scenario

PATIENCE_S = 180.0
ROOT = FOLDER.parent.parent


@contextlib.contextmanager
def started(scenario: Scenario, driver: str) -> Iterator[Place]:
    """Model server, gateway, and the upstream that fails. Raises RuntimeError when one does not
    come up."""
    ports = {name: free_port() for name in ("gateway", "model", "faults")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    for tenant in ("admin", "metrics", "calm", "noisy"):
        os.environ.setdefault(f"LOAD_KEY_{tenant.upper()}", f"sk-load-{secrets.token_hex(16)}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config = Path(folder) / "gateway.toml"
        template = Template((FOLDER / scenario.stack.config).read_text())
        values = {**urls, "port": ports["gateway"], "folder": folder, "root": ROOT}
        config.write_text(template.substitute(values))
        model = ["model", "serve", "--port", str(ports["model"]), "--embedder", "minilm"]
        if driver == "emulated":
            model += ["--runner", "emulated", "--profile", str(ROOT / scenario.stack.profile)]
        pids = {}
        for name, words, path in (
            ("faults", ["loadtests.faults", "--port", str(ports["faults"])], "/v1/models"),
            ("model", [*model, *scenario.stack.model_flags], "/health"),
            ("gateway", ["gateway", "gateway", "--config", str(config)], "/health/ready"),
        ):
            log = Path(folder) / f"{name}.log"
            pids[name] = stack.enter_context(running(words, urls[name] + path, log))
        metrics = [f"{urls[name]}/metrics" for name in ("gateway", "model")]
        yield Place(urls, metrics, pids)


@contextlib.contextmanager
def running(words: list[str], health: str, log: Path) -> Iterator[int]:
    """`python -m …` once `health` answers; its process id."""
    with log.open("w") as said:
        command = [sys.executable, "-m", *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not answers(health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(words)} does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310 (our own)
        return True
    return False
