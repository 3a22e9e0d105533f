"""The command: it listens first, says when it is ready, drains, and leaves with its parent."""

import contextlib
import json
import signal
import socket
import subprocess
import sys

import httpx

from model.server.process import listen

COMMAND = [sys.executable, "-m", "model", "serve", "--model", "tiny-random", "--threads", "1"]
BODY = {"model": "tiny-random", "prompt": "a", "max_tokens": 1000, "ignore_eos": True}


@contextlib.contextmanager
def process(*options, port="0"):
    command = [*COMMAND, "--port", port, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_for(child, words):
    """The message of the first log line with these words."""
    for line in child.stderr:
        message = json.loads(line)["message"]
        if words in message:
            return message
    raise AssertionError(f"the log ends without {words!r}")


def url_of(child):
    return wait_for(child, "ready: ").split(" at ")[1]


def test_sigterm_lets_streams_finish():
    with process() as child:
        url = url_of(child)
        with httpx.stream("POST", f"{url}/completions", json=BODY | {"stream": True}) as reply:
            lines = reply.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert child.wait(10) == 0


def test_it_leaves_when_its_parent_does():
    with process("--parent-pipe") as child:
        url = url_of(child)
        with httpx.stream("POST", f"{url}/completions", json=BODY | {"stream": True}) as reply:
            next(reply.iter_lines())
            child.stdin.close()
            assert child.wait(10) == 0


def test_a_port_in_use_is_said():
    with process() as child:
        port = url_of(child).split(":")[-1].split("/")[0]
        with process(port=port) as second:
            _, said = second.communicate(timeout=20)
            assert second.returncode == 1
            assert f"127.0.0.1:{port}" in said


def test_an_unknown_model_is_said():
    with process("--model", "no-such-model") as child:
        assert "no-such-model" in wait_for(child, "no-such-model")
        assert child.wait(10) == 65


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from model.__main__ import main;"
        "print(CliRunner().invoke(main, ['serve', '--help']).exit_code);"
        "print(sorted({'numpy', 'numba', 'tokenizers', 'uvicorn'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "0\n[]\n"


def test_until_the_models_are_there_every_route_says_503():
    import asyncio

    from model.server.app import State, make_app

    async def ask():
        transport = httpx.ASGITransport(make_app(State()))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return [await http.get(path) for path in ("/health", "/v1/models", "/metrics")]

    for reply in asyncio.run(ask()):
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert reply.json()["error"]["code"] == "loading"


def test_no_part_of_a_reply_waits_for_an_acknowledgement():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
