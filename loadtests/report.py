"""What a run leaves behind: raw records, a summary, and one HTML file that needs nothing else.

The page is `report.html`: its script makes tables and plots of the data that is put into it here.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from loadtests.drive import Run
from loadtests.scenario import Scenario

PAGE = Path(__file__).parent / "report.html"


def write(out: Path, scenario: Scenario, run: Run, summary: dict[str, Any]) -> None:
    """`records.jsonl`, `summary.json` and `report.html` in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    lines = (msgspec.json.encode(it) + b"\n" for it in run.records)
    (out / "records.jsonl").write_bytes(b"".join(lines))
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    data = {"summary": summary, "run": run, "scenario": scenario}
    # No text in the data may end the script element that holds it.
    text = msgspec.json.encode(data).decode().replace("<", "\\u003c")
    (out / "report.html").write_text(PAGE.read_text().replace("$data", text))
