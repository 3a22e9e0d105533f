"""`python -m loadtests run SCENARIO|FILE [--target URL] [--find-capacity] [--out DIR]`.

Without a target the scenario's own stack is started; a target with other models than ours needs
`--model`. Writes `records.jsonl`, `summary.json` and `report.html`. Exit status: 0 all holds, 1 not
all, 2 void, as the generator was the bottleneck, or nothing could be measured: standard error says
why in one line.
"""

import argparse
import asyncio
import math
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import ClientError
from msgspec.structs import replace

from loadtests.drive import Place, drive
from loadtests.figures import Figures, summarise
from loadtests.report import write
from loadtests.scenario import NAMES, Phase, Scenario, load
from loadtests.stack import started

PRECISION = 1.1  # of the capacity: what holds and what does not are no further apart
MAX_PROBES = 12


def measure(
    scenario: Scenario, place: Place, scale: float, out: Path, is_probe: bool = False
) -> Figures:
    """One run and its summary, which is written with all it rests on."""
    run = asyncio.run(drive(scenario, place, scale, is_probe))
    summary = summarise(scenario, run)
    write(out, scenario, run, summary)
    return summary


def find_capacity(scenario: Scenario, place: Place, scale: float, out: Path) -> Figures:
    """A run at the highest scale at which all holds: doubled or halved until it turns, then
    bisected.

    Where the generator is the first to give in, that void probe is the last run. Raises
    RuntimeError when nothing is found.
    """
    low, high, at = 0.0, math.inf, scale
    for _ in range(MAX_PROBES):
        summary = measure(scenario, place, at, out, is_probe=True)
        if summary["void"]:
            return summary
        print(f"scale {at:.3g}: {'holds' if summary['is_held'] else 'breaks'}", file=sys.stderr)
        low, high = (at, high) if summary["is_held"] else (low, at)
        if low and high / low <= PRECISION:
            summary = measure(scenario, place, low, out)
            rates = [f"{it['throughput_rps']:.3g} in {n}" for n, it in summary["phases"].items()]
            if not summary["void"]:
                print(f"capacity: scale {low:.3g}, requests a second: {', '.join(rates)}")
            return summary
        at = at * 2 if high == math.inf else math.sqrt(low * high) if low else at / 2
    raise RuntimeError(f"not found in {MAX_PROBES} probes: {low:.3g} holds, {high:.3g} breaks")


def tell(summary: Figures) -> int:
    """Prints what holds; the exit status."""
    for it in summary["holds"]:
        value = "nothing" if it["value"] is None else f"{it['value']:.4g}"
        print(f"{'holds ' if it['is_held'] else 'BROKEN'} {it['what']}: {value} ({it['bound']})")
        for kind, count in it["errors"].items() if not it["is_held"] else ():
            print(f"       {count} × {kind}")
    if summary["void"]:
        print(f"void: the generator was the bottleneck: {summary['void']}")
        return 2
    return 0 if summary["is_held"] else 1


def changed(
    scenario: Scenario, seconds: float | None, model: str | None, embedder: str | None
) -> Scenario:
    """With phases so long, and everything asked of these models; without an embedder a server with
    that one model is asked for no embeddings. Raises ValueError when a phase is left with nothing.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"--seconds {seconds:g}: a phase takes more than none")

    def of(phase: Phase) -> Phase:
        aims = [(it, embedder if it.user == "embeddings" else model) for it in phase.traffic]
        sent = [replace(it, family=name or it.family) for it, name in aims if name or not model]
        if not sent:
            raise ValueError(f"{phase.name} is all embeddings, which need --embedder NAME")
        return replace(phase, seconds=seconds or phase.seconds, traffic=tuple(sent))

    return replace(scenario, phases=tuple(map(of, scenario.phases)))


def target(text: str) -> Place:
    """A server that runs. Raises ValueError when this is no URL, OSError when nobody listens."""
    url = text.rstrip("/").removesuffix("/v1")
    parts = urlsplit(url)
    port = {"http": 80, "https": 443}.get(parts.scheme)
    if not port or not parts.hostname:
        raise ValueError(f"--target {text}: no URL that begins with http:// or https://")
    try:
        socket.create_connection((parts.hostname, parts.port or port), 10).close()
    except OSError as error:
        raise OSError(f"nobody listens at {url}: {error.strerror or error}") from error
    return Place({"gateway": url}, [f"{url}/metrics"])


def run(args: argparse.Namespace) -> int:
    scenario = changed(load(args.scenario), args.seconds, args.model, args.embedder)
    driver = args.driver or next(iter(scenario.drivers))
    if driver not in scenario.drivers:
        raise ValueError(f"--driver {driver}: {scenario.name} has {' and '.join(scenario.drivers)}")
    out = args.out or Path("var/load") / scenario.name
    place: AbstractContextManager[Place] = started(scenario, driver)
    if args.target is not None:
        place = nullcontext(target(args.target))
    with place as it:
        how = find_capacity if args.find_capacity else measure
        summary = how(scenario, it, scenario.drivers[driver], out)
    print(f"{out}/report.html")
    return tell(summary)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("scenario", help=f"a file, or one of {' '.join(NAMES)}")
    parser.add_argument("--target", help="URL of a server that runs; its keys: LOAD_KEY_*")
    parser.add_argument("--model", help="the model of the target, for all but embeddings")
    parser.add_argument("--embedder", help="its model for embeddings, which are left out without")
    parser.add_argument("--driver", help="emulated or real, where the scenario has both")
    parser.add_argument("--find-capacity", action="store_true")
    parser.add_argument("--seconds", type=float, help="of each phase, instead of its own")
    parser.add_argument("--out", type=Path, help="[default: var/load/SCENARIO]")
    try:
        return run(parser.parse_args(words))
    except (ValueError, OSError, RuntimeError, ClientError) as error:
        print(f"loadtests: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
