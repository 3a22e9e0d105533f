"""Rules and alerts by Prometheus' own tool, and every name in them against /metrics."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "ops" / "prometheus"
promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


@pytest.mark.services
@promtool
@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml", "alerts.yml"),
        ("test", "rules", "rules_test.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    "rule", alerts(), ids=lambda it: it["alert"] + it["labels"].get("burn", "")
)
def test_every_alert_has_its_page(rule: dict[str, Any]) -> None:
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page.read_text().startswith(f"# {rule['alert']}\n")


def test_every_page_has_its_alert() -> None:
    told = {Path(rule["annotations"]["runbook_url"]).name for rule in alerts()}
    assert {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} == told


def test_every_alert_is_tested() -> None:
    tests = (FOLDER / "alerts_test.yml").read_text()
    assert not [rule["alert"] for rule in alerts() if not re.search(rf"{rule['alert']}\b", tests)]
