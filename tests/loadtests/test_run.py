"""`python -m loadtests` against servers that cost nothing: runs, reports, verdicts, capacity."""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loadtests import __main__ as command
from loadtests import figures
from loadtests.drive import Place, drive
from loadtests.faults import FaultServer
from loadtests.report import PAGE
from loadtests.scenario import Ask, Hold, Phase, Scenario, Traffic, load

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
        words = ["run", str(path), "--target", server.base_url]
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
    assert all(f"{count} × {kind}" in said.decode() for kind, count in kinds.items())
    records = [json.loads(it) for it in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len({it["request_id"] for it in records}) == 10
    page = Page((tmp_path / "report.html").read_text())
    data = json.loads(page.scripts[0])
    assert data["scenario"]["about"] == "</script> & <b>"
    assert len(data["run"]["records"]) == 10
    assert not page.links


def test_the_page_takes_any_number_of_requests() -> None:
    """A call with 150,000 arguments is more than a browser's stack holds."""
    assert not re.search(r"\w\([^()\[]*\.\.\.", PAGE.read_text())


@pytest.fixture
def url() -> Iterator[str]:
    """Of one who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("nothing", "no scenario 'nothing': say a .toml file, or burst cache-friendly"),
        ("nothing.toml", "no scenario 'nothing.toml'"),
        ("smoke --driver foo", "--driver foo: smoke has emulated and real"),
        ("burst --driver real", "--driver real: burst has emulated"),
        ("smoke --seconds 0", "--seconds 0"),
        ("smoke --seconds -1", "--seconds -1"),
        ("smoke --seconds nan", "--seconds nan"),
        ("smoke --target 127.0.0.1:8080", "--target 127.0.0.1:8080: no URL that begins with http"),
        ("smoke --target http://", "--target http://: no URL"),
        ("smoke --target http://127.0.0.1:1/v1", "nobody listens at http://127.0.0.1:1: "),
        ("upstream-flaps --target URL", "upstream-flaps asks $faults, which only its own stack"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(
    url: str, words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["run", *words.replace("URL", url).split()]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"loadtests: {complaint}")
    assert said.err.count("\n") == 1
    assert not said.out


@pytest.mark.parametrize(
    ("model", "embedder", "asked"),
    [
        (None, None, {"smollm2", "python-docs", "minilm"}),
        ("m", None, {"m"}),
        ("m", "e", {"m", "e"}),
        (None, "e", {"smollm2", "python-docs", "e"}),
    ],
)
def test_the_models_of_another_server(
    model: str | None, embedder: str | None, asked: set[str]
) -> None:
    (phase,) = command.changed(load("smoke"), 3.0, model, embedder).phases
    assert {it.family for it in phase.traffic} == asked
    assert ("embeddings" in {it.user for it in phase.traffic}) == (not model or bool(embedder))
    assert phase.seconds == 3.0


def test_a_phase_of_which_nothing_is_left() -> None:
    phase = Phase(name="all", seconds=1.0, traffic=(Traffic(user="embeddings"),))
    with pytest.raises(ValueError, match="--embedder"):
        command.changed(Scenario("s", "", {}, (phase,)), None, "m", None)


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


@pytest.mark.anyio
async def test_what_a_phase_needs_may_be_refused() -> None:
    phase = Phase(name="p", seconds=0.2, traffic=(), before=(Ask(url="$gateway/admin/x"),))
    async with FaultServer() as server:
        place = Place({"gateway": server.base_url})
        with pytest.raises(RuntimeError, match=r"p: POST http://.*/admin/x: status 404"):
            await drive(Scenario("s", "", {"emulated": 1.0}, (phase,)), place, 1.0)


SMALL = Scenario("s", "", {"emulated": 1.0}, (), holds=(Hold(what="ok", phase=""),))


def test_the_capacity_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scales = []

    def measured(
        scenario: Scenario, place: Place, scale: float, out: Path, is_probe: bool = False
    ) -> Any:
        scales.append(scale)
        phases = {"only": {"throughput_rps": 20 * scale}}
        return {"void": "", "is_held": scale <= capacity, "phases": phases}

    monkeypatch.setattr(command, "measure", measured)
    for capacity in (0.3, 1.0, 5.7):
        assert command.find_capacity(SMALL, Place({}), 1.0, Path())["is_held"]
        assert scales[-1] <= capacity <= scales[-1] * 1.1
        assert len(scales) < 12
        said = f"scale {scales[-1]:.3g}, requests a second: {20 * scales[-1]:.3g} in only"
        assert said in capsys.readouterr().out
        scales.clear()
    capacity = 0.0
    with pytest.raises(RuntimeError, match="not found"):
        command.find_capacity(SMALL, Place({}), 1.0, Path())


@pytest.mark.anyio
async def test_no_capacity_from_a_void_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said and written is of the probe in which the generator was late."""
    monkeypatch.setattr(figures, "MAX_LAG_S", -1.0)
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO.replace("FAMILY", "ok"))
    async with FaultServer() as server:
        words = ["run", str(path), "--find-capacity", "--target", server.base_url]
        status = await asyncio.to_thread(command.main, [*words, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert status == 2
    assert "void: the generator was the bottleneck: it was late" in said
    assert "capacity:" not in said
    assert json.loads((tmp_path / "summary.json").read_text())["void"]
    assert (tmp_path / "report.html").is_file()
