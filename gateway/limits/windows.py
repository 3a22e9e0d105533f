"""Calendar windows: which one runs, and what was spent in it before anybody counted here."""

import asyncio
import datetime
import math
from collections.abc import Callable, Sequence

from gateway.limits.rules import (
    AT_THE_END,
    SLOT_WAIT_MS,
    WINDOWS,
    Demand,
    Kind,
    Level,
    Refusal,
    Seed,
)


class Calendar:
    """The running UTC day and month by `wall` [s since the epoch].

    A window is named by its first day. Machines must agree on the date, as any with NTP do.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._windows = dict.fromkeys(WINDOWS, ("", 0.0, 0.0))  # name, begin, end

    def window(self, kind: Kind) -> str:
        if kind not in WINDOWS:
            return ""
        name, begin, end = self._windows[kind]
        now = self._wall()
        if begin <= now < end:
            return name
        return self._turn(kind, now)

    def ms_left(self, kind: Kind) -> int:
        return max(1, math.ceil((self._windows[kind][2] - self._wall()) * 1000))

    def refuse(
        self, demands: Sequence[Demand], waits: Sequence[int], levels: Sequence[Level]
    ) -> Refusal:
        """By the demand whose wait [ms] is the longest: after it all have room."""
        finite = [
            wait if wait != AT_THE_END else self._end(demand.rule.kind)
            for demand, wait in zip(demands, waits, strict=True)
        ]
        longest = max(finite)
        demand = demands[finite.index(longest)]
        return Refusal(demand, "limited", longest / 1000, tuple(demands), tuple(levels))

    def _end(self, kind: Kind) -> int:
        return self.ms_left(kind) if kind in WINDOWS else SLOT_WAIT_MS

    def _turn(self, kind: Kind, now: float) -> str:
        day = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        if kind == "cost_per_day":
            begin, end = day, day + datetime.timedelta(days=1)
        else:
            begin = day.replace(day=1)
            end = (begin + datetime.timedelta(days=32)).replace(day=1)
        name = begin.date().isoformat()
        self._windows[kind] = name, begin.timestamp(), end.timestamp()
        return name


class Spent:
    """What the ledger says, asked once however many requests wait for it."""

    def __init__(self, seed: Seed | None) -> None:
        self._seed = seed
        self._asked: dict[tuple[str, Kind, str], asyncio.Task[int]] = {}

    async def __call__(self, subject: str, kind: Kind, window: str) -> int:
        if self._seed is None or not window:
            return 0
        key = subject, kind, window
        task = self._asked.get(key)
        if task is None:
            since = datetime.date.fromisoformat(window)
            task = asyncio.ensure_future(self._ask(self._seed, subject, since))
            self._asked[key] = task
            task.add_done_callback(lambda _: self._asked.pop(key))
        return await asyncio.shield(task)

    @staticmethod
    async def _ask(seed: Seed, subject: str, since: datetime.date) -> int:
        return await seed(subject, since)
