"""The watched child, with a small stand-in for the model server: it answers and it can die."""

import asyncio
import os
import signal
import socket
import sys

import psutil
import pytest

from gateway import local
from gateway.config import Local
from gateway.local import LocalError, LocalModel, command

pytestmark = pytest.mark.anyio

ANSWERS = """
import socketserver, sys, threading
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        models = b'{"data": [{"id": "m", "max_model_len": 77}]}'
        self.request.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n" + models)
socketserver.TCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Answer)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""


def model(monkeypatch: pytest.MonkeyPatch, script: str, ready_s: float = 60.0) -> LocalModel:
    with socket.create_server(("127.0.0.1", 0)) as it:
        port = it.getsockname()[1]
    monkeypatch.setattr(local, "command", lambda _: [sys.executable, "-c", script, str(port)])
    return LocalModel(Local(port=port, ready_s=ready_s, backoff_s=0.01))


def children(it: LocalModel) -> list[psutil.Process]:
    port = str(it.config.port)
    return [child for child in psutil.Process().children() if child.cmdline()[-1:] == [port]]


async def test_a_killed_child_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with model(monkeypatch, ANSWERS) as it:
        await it.until_ready()
        assert it.is_ready
        assert it.context_length == 77
        (first,) = children(it)
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while it.is_ready:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert it.retry_after_s >= 1
            while not it.is_ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (second,) = children(it)
        assert second.pid != first.pid
        assert it.num_restarts == 1
    assert not children(it)


@pytest.mark.parametrize(
    ("script", "ready_s"), [("raise SystemExit(3)", 60.0), ("import sys; sys.stdin.read()", 0.3)]
)
async def test_a_child_that_never_answers_is_an_error_at_the_start(
    monkeypatch: pytest.MonkeyPatch, script: str, ready_s: float
) -> None:
    async with model(monkeypatch, script, ready_s) as it:
        with pytest.raises(LocalError):
            await it.until_ready()
    assert not children(it)


async def test_somebody_elses_port_is_not_taken_for_the_child() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(LocalError, match="--model-port"),
    ):
        await LocalModel(Local(port=taken.getsockname()[1])).__aenter__()


def test_the_childs_command() -> None:
    words = command(Local(model="/models/some.gguf", embedder="", port=7, threads=2, strict=True))
    assert words[:4] == [sys.executable, "-m", "model", "serve"]
    assert "--parent-pipe" in words
    assert words[words.index("--served-model-name") + 1] == "some"
    assert words[words.index("--threads") + 1] == "2"
    assert "--strict" in words
    assert "--embedder" not in words
    assert "--runner" not in words
    words = command(Local(profile="p.toml", loras={"polite": "adapters/polite"}))
    assert words[words.index("--lora-modules") + 1] == "polite=adapters/polite"
    assert words[words.index("--runner") :][:4] == ["--runner", "emulated", "--profile", "p.toml"]
