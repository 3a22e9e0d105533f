"""The dashboards without a Grafana: its types, its grid, and that the metrics are ours.

That every panel has data is proven in tests/walks/test_watched.py, on a real Prometheus.
"""

import copy
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.metrics import Metrics
from model.engine.config import EngineConfig
from model.server.metrics import Metrics as ServerMetrics

ROOT = Path(__file__).parent.parent.parent
DASHBOARDS: dict[str, Any] = {
    path.stem: json.loads(path.read_text()) for path in (ROOT / "ops/grafana").glob("*.json")
}
NAME = re.compile(r"\b(?:glassgate_|gen_ai_(?:server|client)_|vllm:)\w+")


def known() -> set[str]:
    """Every name that a sample may have."""
    served = ServerMetrics("m", EngineConfig(context_length=64))
    families = [*Metrics().registry.collect(), *served.registry.collect()]
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {it.name + end for it in families for end in endings.get(it.type, ("",))}


@pytest.mark.parametrize(
    "path",
    [*(ROOT / "ops/grafana").glob("*.json"), *(ROOT / "ops/prometheus").glob("*[es].yml")],
    ids=lambda it: it.name,
)
def test_every_metric_exists(path: Path) -> None:
    told = set(NAME.findall(path.read_text()))
    assert not told - known()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_share_the_grid(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    cells = [
        (x, y)
        for it in (panel["gridPos"] for panel in panels)
        for x in range(it["x"], it["x"] + it["w"])
        for y in range(it["y"], it["y"] + it["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.services
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_types(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("types", Path(__file__).with_name("npm_types.py"))
    assert spec is not None
    assert spec.loader is not None
    npm_types = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(npm_types)
    try:
        npm_types.install(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm does not reach its registry: {error.stderr[-200:]}")
    assert npm_types.complaints(tmp_path, DASHBOARDS) == ""
    bad = copy.deepcopy(DASHBOARDS["gateway"])
    bad["panels"][0]["fieldConfig"]["defaults"]["unit"] = 3
    bad["panels"][5]["gridPos"]["x"] = "0"
    said = npm_types.complaints(tmp_path, {"bad": bad})
    assert "'number' is not assignable to type 'string'" in said
    assert "'string' is not assignable to type 'number'" in said
