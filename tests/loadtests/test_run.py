"""`python -m loadtests` against servers that cost nothing: runs, reports, verdicts, capacity."""

import asyncio
import json
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loadtests import __main__ as command
from loadtests.drive import Place, drive
from loadtests.faults import FaultServer
from loadtests.scenario import Ask, Hold, Phase, Scenario, Traffic

SCENARIO = """
name = "small"
about = "</script> & <b>"
drivers = { emulated = 1.0 }
[[phases]]
name = "only"
seconds = 0.5
[[phases.traffic]]
user = "chat"
family = "FAMILY"
arrivals = "constant"
rate = 20.0
[[holds]]
what = "error_share"
phase = "only"
at_most = 0.0
"""


class Page(HTMLParser):
    """The texts of a page's scripts, and what it would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.links: list[str] = []
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_script = tag == "script"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts.append(data)
            self._is_script = False


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("family", "status", "kinds"), [("ok", 0, {}), ("error-500", 1, {"status 500": 10})]
)
async def test_the_command(tmp_path: Path, family: str, status: int, kinds: dict[str, int]) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO.replace("FAMILY", family))
    async with FaultServer() as server:
        words = ["run", str(path), "--target", server.base_url.removesuffix("/v1")]
        words += ["--out", str(tmp_path)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests", *words, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    summary = json.loads((tmp_path / "summary.json").read_text())
    phase = summary["phases"]["only"]
    assert (phase["requests"], phase["errors"]) == (10, kinds)
    assert process.returncode == (2 if summary["void"] else status), said
    assert (b"BROKEN" in said) == bool(status)
    records = [json.loads(it) for it in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len({it["request_id"] for it in records}) == 10
    page = Page((tmp_path / "report.html").read_text())
    data = json.loads(page.scripts[0])
    assert data["scenario"]["about"] == "</script> & <b>"
    assert len(data["run"]["records"]) == 10
    assert not page.links


@pytest.mark.anyio
async def test_a_slow_server_is_no_excuse_to_send_less(timed: Callable[..., Any]) -> None:
    """Nothing is answered until all are sent: an open loop."""
    traffic = Traffic(user="chat", arrivals="constant", rate=100.0)
    phase = Phase(name="p", seconds=0.3, traffic=(traffic,))
    scenario = Scenario("s", "", {"emulated": 1.0}, (phase,))
    async with timed() as server:
        driving = asyncio.create_task(drive(scenario, Place({"gateway": server.url}), 1.0))
        while len(server.spoke) < 30:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        server.go_on.set()
        run = await driving
    assert len(run.records) == 30
    assert all(not it.error and it.due <= it.sent for it in run.records)


@pytest.mark.anyio
async def test_what_a_phase_needs_is_asked_first() -> None:
    traffic = (Traffic(user="chat", family="ok", rate=50.0),)
    asked = (Ask(url="$faults/faults/down?seconds=0"),)
    phase = Phase(name="p", seconds=0.2, traffic=traffic, before=asked)
    async with FaultServer() as server:
        url = server.base_url.removesuffix("/v1")
        place = Place({"gateway": url, "faults": url})
        run = await drive(Scenario("s", "", {"emulated": 1.0}, (phase,)), place, 1.0)
        await server._outage
    assert run.records


def test_the_capacity_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = []

    def measured(scenario: Scenario, place: Place, scale: float, out: Path | None) -> Any:
        probes.append(scale)
        return {"void": "", "is_held": scale <= capacity}

    monkeypatch.setattr(command, "measure", measured)
    place = Place({})
    scenario = Scenario("s", "", {"emulated": 1.0}, (), holds=(Hold(what="ok", phase=""),))
    for capacity in (0.3, 1.0, 5.7):
        found = command.find_capacity(scenario, place, 1.0)
        assert found <= capacity <= found * 1.1
        assert len(probes) < 12
        probes.clear()
    capacity = 0.0
    with pytest.raises(RuntimeError, match="not found"):
        command.find_capacity(scenario, place, 1.0)


def test_no_capacity_from_a_void_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "measure", lambda *_: {"void": "it was late", "is_held": True})
    with pytest.raises(RuntimeError, match="late"):
        command.find_capacity(Scenario("s", "", {}, ()), Place({}), 1.0)
