"""What chaos happens to: a gateway with a key, model servers, fifty users, and the books they keep.

A `Load` is what fifty users saw while something was done; `House.books` holds the ledger against
what they saw, to the token.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import aiohttp
import httpx2

from loadtests.client import Record, ask
from loadtests.figures import percentile
from loadtests.users import request

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "ops/profiles/h100-llama-8b.toml"
PATIENCE_S = 60.0
NUM_USERS = 50
CONFIG = """
[server]
port = $port
key_limits = "wide"
header_timeout_s = 3.0
[upstreams.chat]
base_url = $upstreams
model = "smollm2"
prices = [{ prompt = 1, completion = 2 }]
deadlines = { connect = 1.0, headers = 2.0, first_token = 2.0, idle = 2.0 }
[families.m]
labels = { production = "m-1" }
[releases.m-1]
family = "m"
upstream = "chat"
cache = { ttl_s = 0.0 }
[limits.wide]
requests_per_minute = 10_000_000
tokens_per_minute = 10_000_000_000
concurrent = 100_000
[store]
url = "$store"
journal = "$folder/journal"
$more
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as it:
        return int(it.getsockname()[1])


def until(is_so: Callable[[], Any], what: str) -> Any:
    """The first true value of `is_so`; fails after a long while."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := is_so():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def model_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An emulated model server: its URL and its process."""
    port = free_port()
    words = ["model", "serve", "--runner", "emulated", "--profile", str(PROFILE)]
    command = [sys.executable, "-m", *words, "--port", str(port), "--drain-seconds", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health"), "a model server")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@dataclass
class Load:
    """What the users saw in one stretch of time, and what it cost the gateway."""

    records: list[Record] = field(default_factory=list)
    num_others: int = 0  # requests of those who were no users
    cpu_s: float = 0.0
    log_bytes: int = 0

    @property
    def fine(self) -> list[Record]:
        return [it for it in self.records if not it.error]

    @property
    def failed(self) -> list[Record]:
        return [it for it in self.records if it.error]

    @property
    def p99(self) -> float:
        return percentile(sorted(it.e2e for it in self.fine), 99)

    @property
    def cpu_each(self) -> float:
        return self.cpu_s / (len(self.records) + self.num_others)

    @property
    def log_each(self) -> float:
        return self.log_bytes / (len(self.records) + self.num_others)


class House:
    """A gateway in a folder of its own; it can be killed and started again."""

    def __init__(self, folder: Path, upstreams: list[str], store: str = "", more: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "gateway.toml"
        self.lines: list[str] = []
        self.loads: list[Load] = []
        urls = json.dumps([f"{url}/v1" for url in upstreams])
        places = {"port": self.port, "upstreams": urls, "folder": folder, "more": more}
        places["store"] = store or f"sqlite:///{folder}/store.db"
        self.config.write_text(Template(CONFIG).substitute(places))
        words = ["keys", "create", "all", "--scope", "infer", "--scope", "admin"]
        self.key = subprocess.check_output(self._command(*words), cwd=ROOT, text=True).strip()
        self._numbers = itertools.count()

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gateway", *words, "--config", str(self.config)]

    def start(self, command: list[str] | None = None) -> None:
        pipe = subprocess.PIPE
        command = command or self._command("gateway")
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=pipe, text=True)
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        until(lambda: answers(f"{self.url}/health/ready"), "ready")

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr as log:
            self.lines.extend(log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        self._reader.join()

    def said(self, words: str) -> bool:
        """Is it in the log?"""
        return any(words in line for line in self.lines)

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _cpu_s(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @asynccontextmanager
    async def load(self, num_users: int = NUM_USERS, think_s: float = 1.0) -> AsyncIterator[Load]:
        """Users who ask, read and think, until the block ends; then each finishes what he has."""
        load, is_over = Load(), asyncio.Event()
        self.loads.append(load)
        process, cpu_s, num_lines = self.process, self._cpu_s(), len(self.lines)
        lines = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=lines) as http:
            users = [self._user(n, http, load, is_over, think_s) for n in range(num_users)]
            tasks = [asyncio.create_task(it) for it in users]
            yield load
            is_over.set()
            await asyncio.gather(*tasks)
        if self.process is process:
            load.cpu_s = self._cpu_s() - cpu_s
        load.log_bytes = sum(len(it) for it in self.lines[num_lines:])

    async def _user(
        self,
        n: int,
        http: aiohttp.ClientSession,
        load: Load,
        is_over: asyncio.Event,
        think_s: float,
    ) -> None:
        rng = random.Random(n)
        await asyncio.sleep(rng.random() * think_s)
        while not is_over.is_set():
            number = next(self._numbers)
            record = Record("", "chat", "", f"request-{number}", time.monotonic())
            load.records.append(record)
            await ask(http, self.url, request("chat", "m", number), self.auth, record)
            await asyncio.sleep(think_s * (0.5 + rng.random()))

    def rows(self) -> list[dict[str, Any]]:
        """The whole ledger."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            url = f"{self.url}/admin/requests?limit=1000"
            url += f"&before={page['next']}" if page["next"] else ""
            page = httpx2.get(url, headers=self.auth, timeout=30).raise_for_status().json()
            found += page["data"]
        return found

    def books(self) -> str:
        """The ledger has what the users saw, to the token; what was cut is told apart.

        The sums of all complete answers are equal, each is there once, and no row says "ok" of a
        request that failed, unless the connection broke when all was said.
        """
        seen = {it.request_id: it for load in self.loads for it in load.records}
        fine = {name for name, it in seen.items() if not it.error}

        def complete() -> dict[str, Any] | None:
            rows = {row["request_id"]: row for row in self.rows()}
            return rows if fine <= rows.keys() else None

        rows = until(complete, "all complete answers are in the ledger")
        assert len(rows) == len(self.rows()), "a request is in the ledger twice"
        for kind in ("prompt", "completion"):
            told = sum(getattr(seen[name], kind) for name in fine)
            kept = sum(rows[name][f"{kind}_tokens"] for name in fine)
            assert told == kept, f"{kind}: the users saw {told} tokens, the ledger has {kept}"
        assert {rows[name]["outcome"] for name in fine} <= {"ok"}
        odd = {name for name, row in rows.items() if row["outcome"] == "ok"} - fine
        assert all(seen[name].error == "reset" for name in odd if name in seen)
        cut = [row for row in rows.values() if row["outcome"] != "ok"]
        return f"equal, {len(cut)} cut" if cut else "equal"


@dataclass
class Row:
    """A line of the table."""

    what: str
    healthy: Load
    load: Load
    books: str

    def shown(self) -> str:
        p99, cpu = self.load.p99 / self.healthy.p99, self.load.cpu_each / self.healthy.cpu_each
        cells = [f"{self.what:44}", f"{len(self.load.records):8}", f"{len(self.load.failed):7}"]
        cells += [f"{self.healthy.p99:10.3f}", f"{p99:6.2f}"]
        cells += [f"{cpu:6.2f}" if self.load.cpu_s else "     -"]
        return " ".join([*cells, f"{self.load.log_each:8.0f}", f" {self.books}"])


HEAD = (
    f"{'while 50 users ask':44} requests  failed  p99 [s]   × p99  × CPU  log [B]  ledger\n"
    f"{'':62}(healthy)          per request"
)
