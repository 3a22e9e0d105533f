"""The same engine behind HTTP: 16 streams, memory, and how long a start takes.

    python tests/bench/engine_served.py

Starts `python -m model serve` with both models and every default; this process only reads. The
last line of standard output is one JSON object. http_b16: tokens a second of 16 greedy streams,
from the first request sent to the last answer's end, as `engine.together` measures them in process.
rss_mb: the server's resident memory after that, its 16 streams having touched their part of the
KV pool; rss_full_mb: after its whole pool was written to.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from engine import CONTEXT, LONG_ANSWER, STREAMS, prompt

START_S = 60.0
MODEL, EMBEDDER = "smollm2", "minilm"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_until_ready(port: int, started: float) -> float:
    """Seconds until it answers."""
    while time.perf_counter() - started < START_S:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return time.perf_counter() - started
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("the server does not answer")


async def stream(port: int, length: int, number: int, max_tokens: int) -> int:
    """One completion, read to its end; the number of its tokens."""
    asked = {
        "model": MODEL, "prompt": prompt(length, number), "max_tokens": max_tokens,
        "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    body = json.dumps(asked).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: local\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    usage, said = b"", b""
    while b"[DONE]" not in (line := await reader.readline()):
        if not line:
            raise EOFError(f"the stream was cut off after {said!r}")
        said = line
        usage = line if line.startswith(b"data:") else usage
    writer.close()
    tokens: int = json.loads(usage[5:])["usage"]["completion_tokens"]
    return tokens


async def tokens_per_s(port: int, first: int) -> float:
    start = time.perf_counter()
    streams = (stream(port, CONTEXT, first + n, LONG_ANSWER) for n in range(STREAMS))
    return sum(await asyncio.gather(*streams)) / (time.perf_counter() - start)


async def fill(port: int) -> None:
    """Prompts as long as the whole pool of 8,192 tokens."""
    await asyncio.gather(*(stream(port, 2000, 900 + number, 1) for number in range(4)))


def resident_mb(pid: int) -> float:
    """In millions of bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def embed(port: int) -> None:
    """Both models are in use in a server that is measured."""
    asked = {"model": EMBEDDER, "input": ["a passage of a few words"] * 8}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/embeddings", json.dumps(asked).encode()
    )
    urllib.request.urlopen(request, timeout=30).close()


def main() -> None:
    port, started = free_port(), time.perf_counter()
    words = ["serve", "--port", str(port), "--parent-pipe"]
    models = ["--model", MODEL, "--embedder", EMBEDDER]
    server = subprocess.Popen(
        [sys.executable, "-m", "model", *words, *models],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip
    assert server.stdin is not None
    try:
        figures = {"serve_s": wait_until_ready(port, started)}
        embed(port)
        first = asyncio.run(tokens_per_s(port, 0))
        figures["rss_mb"] = resident_mb(server.pid)
        figures["http_b16"] = max(first, asyncio.run(tokens_per_s(port, 100)))
        asyncio.run(fill(port))
        figures["rss_full_mb"] = resident_mb(server.pid)
        print(json.dumps(figures))
    finally:
        server.stdin.close()
        server.wait(30)


if __name__ == "__main__":
    main()
