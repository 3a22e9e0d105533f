"""A stack under the eyes of a real Prometheus: what the dashboards show, and an alert that fires.

Windows are sixty times shorter than those of ops/prometheus: what takes an hour there takes a
minute here, by the very same rules.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed"),
]
STACK = """
[[upstreams.chat.prices]]
prompt = 100
completion = 200
[upstreams.dead]
base_url = "http://127.0.0.1:9/v1"
model = "nobody"
[releases.tiny-2]
family = "tiny"
upstream = "chat"
default_max_tokens = 4
[families.flaky]
labels = { production = "flaky-1" }
fallbacks = ["chat"]
[releases.flaky-1]
family = "flaky"
upstream = "dead"
default_max_tokens = 4
[limits.small]
requests_per_minute = 5
[families.limited]
labels = { production = "limited-1" }
limits = "small"
queue = 2
queue_s = 0.1
[releases.limited-1]
family = "limited"
upstream = "chat"
default_max_tokens = 4
[traces]
sample = 1.0
"""
SCALE = {"m": (1, "s"), "h": (60, "s"), "d": (1440, "s")}
SELECTOR = re.compile(r"\b((?:glassgate_|gen_ai_(?:server|client)_|vllm:)\w+)(?:\{([^}]*)\})?")
BY = re.compile(r"by \(([^)]*)\)")


def shortened(path: Path) -> str:
    """Its rules with windows and waits sixty times shorter; names stay what they are."""

    def scaled(match: re.Match[str]) -> str:
        times, unit = SCALE[match[3]]
        return f"{match[1]}{int(match[2]) * times}{unit}"

    return re.sub(r"(\[|for: )(\d+)([mhd])", scaled, path.read_text())


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **params: str) -> Any:
        reply = httpx2.get(f"{self.url}/api/v1/{path}", params=params, timeout=10).json()
        assert reply["status"] == "success", reply
        return reply["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        found = self.query('ALERTS{alertstate="firing"}')
        return {(it["metric"]["alertname"], it["metric"].get("burn", "")) for it in found}


@contextmanager
def watching(folder: Path, port: int, jobs: dict[str, str]) -> Iterator[Prometheus]:
    """A Prometheus over `jobs` (name → host:port), with the rules of ops."""
    for name in ("rules.yml", "alerts.yml"):
        (folder / name).write_text(shortened(ROOT / "ops" / "prometheus" / name))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml", "alerts.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [at]}]} for job, at in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    words = ["prometheus", f"--config.file={folder}/prometheus.yml", "--log.level=error"]
    words += [f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen([*words, "--enable-feature=exemplar-storage"])
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


class Load:
    """Threads that send what `requests` says, over and over, until the end of `with`."""

    def __init__(self, url: str, requests: list[tuple[str, dict[str, Any]]]) -> None:
        self._url = url
        self._requests = requests
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(2)]

    def _run(self, number: int) -> None:
        with httpx2.Client(base_url=self._url, timeout=30) as client:
            while not self._over.is_set():
                for path, body in self._requests:
                    if self._over.wait(0.05):
                        return
                    said = {**body, "user": f"{number}-{time.monotonic_ns()}"}
                    client.post(path, json=said if "model" in body else body)

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def chat(family: str, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": "one two three"}]
    return "/v1/chat/completions", {"model": family, "messages": messages, **more}


def expressions() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "ops" / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"]


def filled(expression: str) -> str:
    window = expression.replace("$__rate_interval", "10s").replace("[24h]", "[1m]")
    return re.sub(r"\$(family|model)\b", ".*", window)


class Watched(NamedTuple):
    stack: Any
    prometheus: Prometheus
    model: str  # its URL


@pytest.fixture(scope="module")
def watched(
    serve: Any, new_port: Any, wait_until: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A stack under load, seen by a Prometheus that has data for every panel, or has had time."""
    with serve(STACK) as stack:
        port = re.search(r"\[local\][^[]*port = (\d+)", _config(stack).read_text())
        assert port is not None
        model = f"127.0.0.1:{port[1]}"
        jobs = {"gateway": stack.url.removeprefix("http://"), "model": model}
        asked = [
            chat("tiny", stream=True, temperature=0.5),
            chat("tiny", temperature=0),
            ("/v1/embeddings", {"model": "embedder", "input": "one two"}),
            chat("flaky", stream=True),
            chat("limited"),
            chat("nobody"),
            _store(stack.url),
        ]
        _glassgate(stack, "budgets", "set", "global", "day", "--soft", "0.000001")
        folder = tmp_path_factory.mktemp("prometheus")
        with watching(folder, new_port(), jobs) as prometheus, Load(stack.url, asked):
            wait_until(lambda: _answers(prometheus), "Prometheus answers")
            time.sleep(5)
            _config(stack).touch()
            end = time.monotonic() + 40
            while _empty_panels(prometheus) and time.monotonic() < end:
                time.sleep(1)
            yield Watched(stack, prometheus, f"http://{model}")


def _empty_panels(prometheus: Prometheus) -> list[tuple[str, str]]:
    return [it for it in expressions() if not prometheus.query(filled(it[1]))]


def test_every_panel_has_data(watched: Watched) -> None:
    assert not _empty_panels(watched.prometheus)


def test_every_label_is_on_its_metric(watched: Watched) -> None:
    for title, expression in expressions():
        grouped = {it.strip() for names in BY.findall(expression) for it in names.split(",")}
        for metric, conditions in SELECTOR.findall(expression):
            found = watched.prometheus.ask("series", **{"match[]": metric})
            labels = {name for series in found for name in series}
            used = grouped | {it.partition("=")[0].rstrip("!") for it in conditions.split(",")}
            assert not {it for it in used if it} - labels, (title, metric)


def test_a_bucket_leads_to_a_trace(watched: Watched) -> None:
    name = "gen_ai_server_request_duration_seconds_bucket"
    now = time.time()
    params = {"query": name, "start": f"{now - 60:.3f}", "end": f"{now:.3f}"}
    (first, *_) = watched.prometheus.ask("query_exemplars", **params)[0]["exemplars"]
    reply = httpx2.get(f"{watched.stack.url}/v1/traces/{first['labels']['trace_id']}")
    assert reply.json()["spans"][0]["end_us"] > 0


def commands() -> Iterator[tuple[str, str]]:
    """Of the runbooks; the page that makes a key comes last, as then nobody is let in without."""
    pages = (ROOT / "docs" / "runbooks").glob("*.md")
    for page in sorted(pages, key=lambda it: (it.stem == "target-down", it.stem)):
        for line in page.read_text().splitlines():
            if re.match(r" {4,}(promtool|curl|glassgate|df) ", line):
                yield page.stem, line.strip()


def test_every_command_of_the_runbooks_works(watched: Watched, tmp_path: Path) -> None:
    stack = watched.stack
    trace = {"x-request-id": "walk-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    path, body = chat("tiny")
    assert httpx2.post(stack.url + path, json=body, headers=trace, timeout=30).status_code == 200
    time.sleep(1)  # traces are written twice a second
    _glassgate(stack, "teams", "set", "search")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GLASSGATE_CONFIG": str(_config(stack)),
        "REQUEST": "walk-1",
        "TRACE": "a" * 32,
        "FAMILY": "tiny",
        "BACKUP": str(tmp_path / "backup.db"),
    }
    here = {"9090": watched.prometheus.url, "8080": stack.url, "8081": watched.model}
    for page, command in commands():
        if " rollback " in command:
            _glassgate(stack, "releases", "promote", "tiny", "tiny-2", "--why", "to roll it back")
        for port, url in here.items():
            command = command.replace(f"http://127.0.0.1:{port}", url)  # noqa: PLW2901
        done = subprocess.run(
            command, shell=True, env=env, capture_output=True, text=True, check=False
        )
        is_dead_seen = command == "glassgate doctor" and "127.0.0.1:9 " in done.stdout
        assert is_dead_seen or done.returncode == 0, (page, command, done.stdout + done.stderr)


def _config(stack: Any) -> Path:
    words = stack.process.args
    return Path(words[words.index("--config") + 1])


def _store(url: str) -> tuple[str, dict[str, Any]]:
    """A search in a vector store of its own, of words alone."""
    made = httpx2.post(f"{url}/v1/vector_stores", json={"name": "walk"}, timeout=30).json()
    return f"/v1/vector_stores/{made['id']}/search", {"query": "one two three"}


def _glassgate(stack: Any, *words: str) -> None:
    command = [sys.executable, "-m", "gateway", *words, "--config", str(_config(stack))]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)


def _answers(prometheus: Prometheus) -> bool:
    """It is ready, and has found a target."""
    try:
        is_ready = httpx2.get(f"{prometheus.url}/-/ready").status_code == 200
        return is_ready and bool(prometheus.query("up == 1"))
    except httpx2.TransportError:
        return False


class Breakable(ThreadingHTTPServer):
    """An upstream that answers as long as it `is_well`."""

    is_well = True
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        message = {"role": "assistant", "content": "Paris"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
        body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})
        assert isinstance(self.server, Breakable)
        self._send(200 if self.server.is_well else 500, body.encode())

    def do_GET(self) -> None:
        self._send(200, b"{}")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is overridden
        pass


@contextmanager
def breakable() -> Iterator[tuple[Breakable, str]]:
    server = Breakable(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_outage_wakes_somebody_and_is_over(
    gateway: Any,
    write_config: Callable[[str], Path],
    new_port: Any,
    wait_until: Any,
    tmp_path: Path,
) -> None:
    burning = ("AvailabilityBudgetBurn", "14.4")
    with breakable() as (upstream, url):
        config = write_config(
            f'[upstreams.up]\nbase_url = "{url}"\nmodel = "m"\n'
            '[families.town]\nlabels = { production = "town-1" }\n'
            '[releases.town-1]\nfamily = "town"\nupstream = "up"\n'
            "[retries]\nper_target = 0\nattempts = 1\n"
        )
        stack = gateway(config, new_port())
        jobs = {"gateway": stack.url.removeprefix("http://")}
        with watching(tmp_path, new_port(), jobs) as prometheus, Load(stack.url, [chat("town")]):
            wait_until(lambda: _answers(prometheus), "Prometheus answers")
            wait_until(lambda: prometheus.query("glassgate:errors:ratio_rate5m == 0"), "all well")
            assert not prometheus.firing()
            broken, upstream.is_well = time.monotonic(), False
            wait_until(lambda: burning in prometheus.firing(), "the alert fires")
            wait_until(lambda: ("BreakerOpen", "") in prometheus.firing(), "so does its cause")
            mended, upstream.is_well = time.monotonic(), True
            wait_until(lambda: burning not in prometheus.firing(), "the alert is over")
            over = time.monotonic()
    print(f"\nfired {mended - broken:.0f} s after the break, over {over - mended:.0f} s after")
