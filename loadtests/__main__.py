"""`python -m loadtests run SCENARIO|FILE [--target URL] [--find-capacity] [--out DIR]`.

Without a target the scenario's own stack is started. Writes `records.jsonl`, `summary.json` and
`report.html`. Exit status: 0 all holds, 1 not all, 2 void, as the generator was the bottleneck.
"""

import argparse
import asyncio
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from loadtests.drive import Place, drive
from loadtests.figures import summarise
from loadtests.report import write
from loadtests.scenario import FOLDER, Phase, Scenario, load
from loadtests.stack import started

PRECISION = 1.1  # of the capacity: what holds and what does not are no further apart
MAX_PROBES = 12


def measure(scenario: Scenario, place: Place, scale: float, out: Path | None) -> dict[str, Any]:
    """One run and its summary, which is written with all it rests on; without `out` a probe."""
    run = asyncio.run(drive(scenario, place, scale, is_search=out is None))
    summary = summarise(scenario, run)
    if out is not None:
        write(out, scenario, run, summary)
    return summary


def find_capacity(scenario: Scenario, place: Place, scale: float) -> float:
    """The highest scale at which all holds: doubled or halved until it turns, then bisected.

    Raises RuntimeError when it is not found, or the generator is the first to give in.
    """
    low, high, at = 0.0, math.inf, scale
    for _ in range(MAX_PROBES):
        summary = measure(scenario, place, at, None)
        if summary["void"]:
            raise RuntimeError(f"scale {at:.3g}: {summary['void']}")
        print(f"scale {at:.3g}: {'holds' if summary['is_held'] else 'breaks'}", file=sys.stderr)
        low, high = (at, high) if summary["is_held"] else (low, at)
        if low and high / low <= PRECISION:
            return low
        at = at * 2 if high == math.inf else math.sqrt(low * high) if low else at / 2
    raise RuntimeError(f"not found in {MAX_PROBES} probes: {low:.3g} holds, {high:.3g} breaks")


def tell(summary: dict[str, Any]) -> int:
    """Prints what holds; the exit status."""
    for it in summary["holds"]:
        value = "nothing" if it["value"] is None else f"{it['value']:.4g}"
        print(f"{'holds ' if it['is_held'] else 'BROKEN'} {it['what']}: {value} ({it['bound']})")
    if summary["void"]:
        print(f"void: the generator was the bottleneck: {summary['void']}")
        return 2
    return 0 if summary["is_held"] else 1


def changed(scenario: Scenario, seconds: float | None, model: str | None) -> Scenario:
    """With phases so long, and everything asked of this model."""

    def of(phase: Phase) -> Phase:
        traffic = tuple(replace(it, family=model or it.family) for it in phase.traffic)
        return replace(phase, seconds=seconds or phase.seconds, traffic=traffic)

    return replace(scenario, phases=tuple(map(of, scenario.phases)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = " ".join(sorted(path.stem for path in FOLDER.glob("*.toml")))
    parser.add_argument("command", choices=["run"])
    parser.add_argument("scenario", help=f"a file, or one of {names}")
    parser.add_argument("--target", help="a server that runs, without /v1; its keys: LOAD_KEY_*")
    parser.add_argument("--model", help="the only model of the target, if it has one")
    parser.add_argument("--driver", help="emulated or real, where the scenario has both")
    parser.add_argument("--find-capacity", action="store_true")
    parser.add_argument("--seconds", type=float, help="of each phase, instead of its own")
    parser.add_argument("--out", type=Path, help="[default: var/load/SCENARIO]")
    args = parser.parse_args()
    scenario = changed(load(args.scenario), args.seconds, args.model)
    driver = args.driver or next(iter(scenario.drivers))
    out = args.out or Path("var/load") / scenario.name
    scale = scenario.drivers[driver]
    place: AbstractContextManager[Place] = started(scenario, driver)
    if args.target:
        url = args.target.rstrip("/")
        place = nullcontext(Place({"gateway": url}, [f"{url}/metrics"]))
    with place as it:
        if args.find_capacity:
            scale = find_capacity(scenario, it, scale)
            print(f"capacity: scale {scale:.3g}")
        summary = measure(scenario, it, scale, out)
    print(f"{out}/report.html")
    return tell(summary)


if __name__ == "__main__":
    sys.exit(main())
