"""When requests are due: an open loop, which does not wait for answers.

Gaps of mean 1 are drawn in operational time and brought to the clock through the inverse of the
cumulative rate, so every process can also follow a ramp. The same seed gives the same arrivals.
"""

import csv
import datetime
import math
import random
from collections.abc import Callable
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

from loadtests.scenario import Traffic


class Due(NamedTuple):
    """A request, `at` [s] after the phase's begin; its tokens where a trace says them."""

    at: float
    traffic: Traffic
    number: int  # within its traffic
    prompt: int = 0
    output: int = 0


def arrivals(traffic: Traffic, seconds: float, scale: float, seed: str) -> list[Due]:
    """All of one phase, in order; `scale` multiplies the rate, and the speed of a trace."""
    if traffic.arrivals == "trace":
        speed, rows = traffic.speed * scale, enumerate(read_trace(Path(traffic.trace)))
        dues = (Due(at / speed, traffic, n, *lengths) for n, (at, *lengths) in rows)
        return [due for due in dues if due.at < seconds]
    rate = traffic.rate if isinstance(traffic.rate, tuple) else (traffic.rate, traffic.rate)
    first, last = (it * scale for it in rate)
    clock, total = from_operational(first, last, seconds), (first + last) / 2 * seconds
    drawn = accumulate(iter(gap(traffic, random.Random(seed)), None))
    points = takewhile(lambda at: at <= total, drawn)
    return [Due(clock(at), traffic, number) for number, at in enumerate(points)]


def gap(traffic: Traffic, rng: random.Random) -> Callable[[], float]:
    """Draws a gap of mean 1."""
    shape = 1 / traffic.cv**2
    draws: dict[str, Callable[[], float]] = {
        "constant": lambda: 1.0,
        "poisson": lambda: rng.expovariate(1.0),
        "gamma": lambda: rng.gammavariate(shape, 1 / shape),
    }
    return draws[traffic.arrivals]


def from_operational(first: float, last: float, seconds: float) -> Callable[[float], float]:
    """Inverse of the arrivals expected up to t: first·t + (last - first)·t²/(2·seconds)."""
    slope = (last - first) / seconds
    if not slope:
        return lambda count: count / first
    return lambda count: (math.sqrt(max(0.0, first**2 + 2 * slope * count)) - first) / slope


def read_trace(path: Path) -> list[tuple[float, int, int]]:
    """Seconds after the first row, prompt tokens, output tokens; from the first three columns of a
    CSV with a heading, whose timestamps are dates or seconds."""
    with path.open(newline="") as file:
        rows = [(_seconds(row[0]), int(row[1]), int(row[2])) for row in list(csv.reader(file))[1:]]
    return [(at - rows[0][0], prompt, output) for at, prompt, output in rows]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.datetime.fromisoformat(text).timestamp()
