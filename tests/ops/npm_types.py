"""Grafana's own TypeScript types for dashboards, from npm, put to a dashboard's JSON.

npm brings `@grafana/schema` and the compiler into a folder; each dashboard becomes a constant, each
panel one of its own kind. An enum of text is written anew as the union of its values,
for JSON has no enums.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("@grafana/schema@11.6.1", "typescript@5.8.3")
COMPOSABLE = "@grafana/schema/dist/esm/raw/composable"
HEAD = f"""
import type {{ Dashboard, Panel }} from "@grafana/schema";
import type * as stat from "{COMPOSABLE}/stat/panelcfg/x/StatPanelCfg_types.gen.js";
import type * as series from "{COMPOSABLE}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.js";
type Stat = Panel<stat.Options, {{}}>;
type Series = Panel<series.Options, series.FieldConfig>;
"""
KINDS = {"stat": "Stat", "timeseries": "Series"}
ENUM = re.compile(r"(export )?declare enum (\w+) \{(.*?)\}", re.DOTALL)


def install(folder: Path) -> None:
    """Raises CalledProcessError where npm cannot reach its registry."""
    words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"--prefix={folder}"]
    subprocess.run([*words, *PACKAGES], check=True, capture_output=True, timeout=240)
    for path in (folder / "node_modules/@grafana/schema/dist/esm").rglob("*.d.*ts"):
        text = path.read_text()
        if (plain := ENUM.sub(_union, text)) != text:
            path.write_text(plain)


def _union(enum: re.Match[str]) -> str:
    values = re.findall(r"= ('[^']*'|\"[^\"]*\"|-?\d+)", enum[3])
    return f"{enum[1] or ''}type {enum[2]} = {' | '.join(values)};"


def complaints(folder: Path, dashboards: dict[str, Any]) -> str:
    """What the compiler says against them; nothing if they are of the right types."""
    lines = [HEAD]
    for name, dashboard in dashboards.items():
        lines.append(f"export const {name}: Dashboard = {json.dumps(dashboard)};")
        for panel in dashboard["panels"]:
            const = f"{name}_{panel['id']}: {KINDS[panel['type']]}"
            lines.append(f"export const {const} = {json.dumps(panel)};")
    (folder / "check.ts").write_text("\n".join(lines))
    words = ["npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "esnext"]
    done = subprocess.run(
        [*words, "--moduleResolution", "bundler", "check.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.stdout
