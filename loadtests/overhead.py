"""What the gateway costs: direct, through a bare proxy, and through Glassgate with everything on.

    python -m loadtests.overhead [--seconds 6] [--rounds 3] [--soak-minutes 10]
                                 [--peer NAME=URL[;Header: value]]...

wrk and the upstream share one core, whoever is measured has the other; they take turns, and the
medians are printed as one JSON object, the last line of standard output. Everything on: a key,
limits on all levels, a budget, ledger, metrics and trace ids. `growth_1e6` is the CPU time of a
request with 10^6 ledger rows and 10^5 keys over that with an empty store.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BODY = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
CONNECTIONS = 16
NUM_CHUNKS = 64
CONFIG = """
[server]
port = {port}
limits = "wide"
key_limits = "wide"
[store]
url = "sqlite:///{folder}/glassgate.db"
journal = "{folder}/journal"
[upstreams.stand-in]
base_url = "{upstream}"
model = "m"
prices = [{{ prompt = "0.15", completion = "0.60" }}]
[families.m]
labels = {{ production = "m-1" }}
limits = "wide"
[releases.m-1]
family = "m"
upstream = "stand-in"
[limits.wide]
requests_per_minute = 100000000
tokens_per_minute = 100000000000
concurrent = 100000
cost_per_day = "1000000"
"""


@dataclass
class Server:
    """One that is measured. `pid` 0: somebody else's, of which no CPU time is known."""

    name: str
    base_url: str
    headers: dict[str, str] = field(default_factory=dict)
    pid: int = 0

    def cpu_s(self) -> float:
        """Processor seconds so far; 0 for a foreign process."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Of its own: without what it maps of files, as the journal's segments come and go."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) / 1024


@dataclass
class Round:
    """What wrk saw, and what it cost the server."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(core: int, *command: str, port: int, **variables: str) -> Iterator[int]:
    """A process pinned to a core, its port open; its id. It is ended on leaving."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not answer on port {port}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def uvicorn(app: str, port: int) -> list[str]:
    flags = ["--port", str(port), "--log-level", "warning", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", f"loadtests.stand_in:{app}", *flags]


@contextlib.contextmanager
def gateway(upstream: str, rows: int, num_keys: int) -> Iterator[Server]:
    """Glassgate with everything on, over a store that holds so much."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = Path(folder) / "gateway.toml"
        config.write_text(CONFIG.format(port=port, folder=folder, upstream=upstream))
        fill = [sys.executable, "tests/bench/ledger.py", "--fill", "--rows", str(rows)]
        fill += ["--all-keys", str(num_keys), "--url", f"sqlite:///{folder}/glassgate.db"]
        key = subprocess.check_output(fill, text=True).split()[-1]
        command = [sys.executable, "-m", "gateway", "gateway", "--config", str(config)]
        with running(0, *command, port=port) as pid:
            headers = {"authorization": f"Bearer {key}"}
            ours = Server("glassgate", f"http://127.0.0.1:{port}/v1", headers, pid)
            sequential_p50_ms(ours, count=20)  # the port opens before the store is read
            yield ours


def wrk(server: Server, seconds: float, is_streamed: bool) -> Round:
    """One round of wrk from core 1. Raises RuntimeError when an answer was no 2xx."""
    lines = ['wrk.method = "POST"', f"wrk.body = {json.dumps(json.dumps(_body(is_streamed)))}"]
    headers = {"content-type": "application/json", **server.headers}
    lines += [f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in headers.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        before, started = server.cpu_s(), time.monotonic()
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s"]
        command += ["--latency", "-s", script.name, f"{server.base_url}/chat/completions"]
        said = subprocess.check_output(command, text=True)
        cpu_s, took = server.cpu_s() - before, time.monotonic() - started
    if "Non-2xx" in said:
        raise RuntimeError(f"{server.name}: {said}")
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    p50, p99 = (_ms(re.findall(rf"\n +{share}% +(\S+)", said)[0]) for share in (50, 99))
    return Round(rate, p50, p99, cpu_s / (rate * took) * 1e6)


def _body(is_streamed: bool) -> dict[str, object]:
    return {**BODY, "stream": True} if is_streamed else BODY


def _ms(text: str) -> float:
    value, unit = re.findall(r"([\d.]+)(us|ms|s)", text)[0]
    return float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def sequential_p50_ms(server: Server, count: int = 500) -> float:
    """Median milliseconds of one request after the other on one connection."""
    url = urllib.parse.urlsplit(server.base_url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    headers = {"content-type": "application/json", **server.headers}
    times = []
    for _ in range(count):
        start = time.perf_counter()
        connection.request("POST", f"{url.path}/chat/completions", json.dumps(BODY), headers)
        connection.getresponse().read()
        times.append(time.perf_counter() - start)
    connection.close()
    return statistics.median(times) * 1e3


def rss_slope(server: Server, minutes: float) -> float:
    """MB a minute of growth under mixed load, by least squares; the first fifth is left out."""
    samples: list[tuple[float, float]] = []
    started = time.monotonic()
    while time.monotonic() - started < minutes * 60:
        for is_streamed in (False, True):
            wrk(server, 4, is_streamed)
        samples.append(((time.monotonic() - started) / 60, server.rss_mb()))
    kept = samples[len(samples) // 5 :]
    if len(kept) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*kept, strict=True)).slope


def measure(servers: list[Server], seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds, in which the servers take turns."""
    plain: dict[str, list[Round]] = {server.name: [] for server in servers}
    streams: dict[str, list[Round]] = {server.name: [] for server in servers}
    alone: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            plain[server.name].append(wrk(server, seconds, is_streamed=False))
            streams[server.name].append(wrk(server, seconds, is_streamed=True))
            alone[server.name].append(sequential_p50_ms(server))
    return {
        name: {
            "rps": statistics.median(it.rate for it in plain[name]),
            "p50_ms": statistics.median(it.p50_ms for it in plain[name]),
            "p99_ms": statistics.median(it.p99_ms for it in plain[name]),
            "streams": statistics.median(it.rate for it in streams[name]),
            "cpu_us_request": statistics.median(it.cpu_us for it in plain[name]),
            "cpu_us_stream": statistics.median(it.cpu_us for it in streams[name]),
            "sequential_p50_ms": statistics.median(alone[name]),
        }
        for name in plain
    }


def report(seen: dict[str, dict[str, float]], growth: float, slope: float) -> dict[str, object]:
    ours, bare, direct = (seen.pop(name) for name in ("glassgate", "bare", "direct"))
    chunk_us = (ours["cpu_us_stream"] - ours["cpu_us_request"]) / NUM_CHUNKS
    return {
        "rps": round(ours["rps"]),
        "rps_bare": round(bare["rps"]),
        "rps_direct": round(direct["rps"]),
        "vs_bare_rps": round(ours["rps"] / bare["rps"], 3),
        "p50_ms": ours["p50_ms"],
        "p99_ms": ours["p99_ms"],
        "streams": round(ours["streams"], 1),
        "streams_bare": round(bare["streams"], 1),
        "vs_bare_streams": round(ours["streams"] / bare["streams"], 3),
        "added_p50_ms": round(ours["sequential_p50_ms"] - direct["sequential_p50_ms"], 3),
        "added_p50_ms_bare": round(bare["sequential_p50_ms"] - direct["sequential_p50_ms"], 3),
        "cpu_us_request": round(ours["cpu_us_request"], 1),
        "cpu_us_request_bare": round(bare["cpu_us_request"], 1),
        "cpu_us_chunk": round(chunk_us, 2),
        "growth_1e6": round(growth, 3),
        "rss_slope_mb_per_min": round(slope, 3),
        "peers": {name: {k: round(v, 3) for k, v in them.items()} for name, them in seen.items()},
    }


def read_peer(text: str) -> Server:
    """NAME=URL[;Header: value]..."""
    name, _, rest = text.partition("=")
    url, *headers = rest.split(";")
    pairs = (header.partition(":") for header in headers)
    return Server(name, url.rstrip("/"), {k.strip(): v.strip() for k, _, v in pairs})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak-minutes", type=float, default=10)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer", type=read_peer, action="append", default=[])
    args = parser.parse_args()
    up, between = free_port(), free_port()
    direct = Server("direct", f"http://127.0.0.1:{up}/v1")
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(1, *uvicorn("upstream", up), port=up))
        proxy = running(0, *uvicorn("proxy", between), port=between, UPSTREAM=direct.base_url)
        bare = Server("bare", f"http://127.0.0.1:{between}/v1", pid=stack.enter_context(proxy))
        ours = stack.enter_context(gateway(direct.base_url, 0, 0))
        seen = measure([direct, bare, ours, *args.peer], args.seconds, args.rounds)
        slope = rss_slope(ours, args.soak_minutes)
        full = stack.enter_context(gateway(direct.base_url, args.rows, 100_000))
        pairs = [
            (wrk(full, args.seconds, False).cpu_us, wrk(ours, args.seconds, False).cpu_us)
            for _ in range(args.rounds)
        ]
        growth = statistics.median(grown / empty for grown, empty in pairs)
    print(json.dumps(report(seen, growth, slope)))


if __name__ == "__main__":
    main()
