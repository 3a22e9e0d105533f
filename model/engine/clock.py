"""Time as the engine sees it: the wall's, or one that only moves when told to."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds from an arbitrary start; never goes back."""

    def now(self) -> float: ...

    def advance(self, seconds: float) -> None:
        """Return once `seconds` more have passed on this clock."""


class WallClock:
    """The monotonic clock; advancing it means waiting."""

    def now(self) -> float:
        return time.monotonic()

    def advance(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)


class VirtualClock:
    """Starts at 0 and advances at once."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += max(seconds, 0.0)
