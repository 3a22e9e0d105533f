"""How many streams one emulated server carries on one core before its time runs away.

    python tests/bench/emulated.py [--loads 125,250,500,750] [--tokens 100]

A machine that takes 50 ms a step, so 20 tokens a second for every stream, is served over HTTP by
one process on one core; this process reads on another. drift: by how much the median stream's time
between two tokens is longer than the 50 ms. The last line of standard output is one JSON object;
`streams_that_hold` is the largest load with a drift below 10 %.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from engine_served import free_port, wait_until_ready

STEP_S, BOUND = 0.05, 0.1
PROFILE = f"""
name = "steady"
source = "made up: every step takes the same time"
step = {{ tokens = [1], seconds = [{STEP_S}] }}
[engine]
context_length = 4096
num_blocks = 200000
max_num_seqs = 4096
max_num_batched_tokens = 65536
prefill_chunk = 4096
"""


async def seconds_per_token(port: int, number: int, tokens: int) -> float:
    """Of one stream, from its first token to its last."""
    asked = {
        "model": "steady", "prompt": f"stream {number}", "max_tokens": tokens,
        "ignore_eos": True, "stream": True,
    }  # fmt: skip
    body = json.dumps(asked).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: local\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    arrivals = []
    while True:
        chunk = await reader.read(1 << 16)
        if not chunk:
            raise EOFError("the stream was cut off")
        arrivals += [time.perf_counter()] * chunk.count(b"data: {")
        if b"[DONE]" in chunk:
            break
    writer.close()
    return (arrivals[-1] - arrivals[0]) / (tokens - 1)


async def drift(port: int, streams: int, tokens: int) -> float:
    times = await asyncio.gather(*(seconds_per_token(port, n, tokens) for n in range(streams)))
    return statistics.median(times) / STEP_S - 1


def drifts(loads: list[int], tokens: int) -> dict[int, float]:
    """The drift at each load, on a server that is up for all of them."""
    first, *others = sorted(os.sched_getaffinity(0))
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as profile:
        profile.write(PROFILE)
        profile.flush()
        port, started = free_port(), time.perf_counter()
        words = ["--runner", "emulated", "--profile", profile.name, "--answers", "random"]
        words += ["--model", "steady", "--port", str(port), "--parent-pipe"]
        server = subprocess.Popen(
            ["taskset", "-c", str(first), sys.executable, "-m", "model", "serve", *words],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.sched_setaffinity(0, others or [first])
        assert server.stdin is not None
        try:
            wait_until_ready(port, started)
            return {load: asyncio.run(drift(port, load, tokens)) for load in loads}
        finally:
            server.stdin.close()
            server.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", default="125,250,500,750")
    parser.add_argument("--tokens", type=int, default=100)
    args = parser.parse_args()
    found = drifts([int(load) for load in args.loads.split(",")], args.tokens)
    holds = [load for load, value in found.items() if value < BOUND]
    result = {f"drift_{load}": round(value, 3) for load, value in found.items()}
    print(json.dumps(result | {"streams_that_hold": max(holds, default=0)}))


if __name__ == "__main__":
    main()
