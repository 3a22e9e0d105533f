"""The limits of one process: integers in dicts. Nothing here is shared; `redis` is for that."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.limits.rules import (
    AT_THE_END,
    BUCKETS,
    GRAINS,
    Amounts,
    Demand,
    Grant,
    Kind,
    Level,
    Refusal,
    Seed,
    grant_ids,
    too_large,
)
from gateway.limits.windows import Calendar, Spent

Key = tuple[str, Kind, str]  # subject, kind, window
NEVER = 2**63
MAX_IDLE = 10_000  # so many are kept without asking whether they are still needed


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Bucket:
    """How many grains are missing. A full one says nothing that a new one would not."""

    __slots__ = ("capacity", "missing", "seen")

    def __init__(self, now: int) -> None:
        self.missing = 0
        self.seen = now  # [ms]
        self.capacity = 1

    def wait(self, amount: int, capacity: int, now: int) -> int:
        """How long until `amount` fits [ms]."""
        self._refill(capacity, now)
        over = self.missing + (amount - capacity) * GRAINS
        return -(-over // capacity) if over > 0 else 0

    def take(self, grant: str, amount: int, until: int) -> None:
        self.missing += amount * GRAINS

    def settle(self, grant: str, demand: Demand, used: int, now: int) -> None:
        self._refill(demand.rule.capacity, now)
        missing = self.missing + (used - demand.amount) * GRAINS
        self.missing = missing if missing > 0 else 0

    def renew(self, grant: str, now: int, until: int) -> bool:
        return True

    def level(self, capacity: int) -> Level:
        left = capacity + -self.missing // GRAINS
        return left if left > 0 else 0, -(-self.missing // capacity)

    def is_idle(self, now: int, has_ended: bool) -> bool:
        return self.missing <= self.capacity * (now - self.seen)

    def _refill(self, capacity: int, now: int) -> None:
        missing = self.missing - capacity * (now - self.seen)
        self.missing = missing if missing > 0 else 0
        self.seen = now
        self.capacity = capacity


class Counter:
    """What is used: slots, or the money of a window, each reservation under its lease."""

    __slots__ = ("first_end", "lapsed", "leases", "used")

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self.leases: dict[str, tuple[int, int]] = {}  # grant → end [ms], amount
        self.lapsed: set[str] = set()  # ended unsettled: a late settlement is charged whole
        self.first_end = NEVER  # no lease ends before it

    def wait(self, amount: int, capacity: int, now: int) -> int:
        if now >= self.first_end:
            self._reclaim(now)
        return 0 if self.used + amount <= capacity else AT_THE_END

    def take(self, grant: str, amount: int, until: int) -> None:
        self.used += amount
        self.leases[grant] = until, amount
        self.first_end = min(self.first_end, until)

    def settle(self, grant: str, demand: Demand, used: int, now: int) -> None:
        if self.leases.pop(grant, None):
            self.used += used - demand.amount
        elif grant in self.lapsed:
            self.lapsed.discard(grant)
            self.used += used

    def renew(self, grant: str, now: int, until: int) -> bool:
        end, amount = self.leases.get(grant, (now, 0))
        if end > now:
            self.leases[grant] = until, amount
        return end > now

    def level(self, capacity: int) -> Level:
        return max(0, capacity - self.used), AT_THE_END

    def is_idle(self, now: int, has_ended: bool) -> bool:
        self._reclaim(now)
        return not self.leases and (has_ended or not self.used)

    def _reclaim(self, now: int) -> None:
        ended = [grant for grant, (end, _) in self.leases.items() if end <= now]
        for grant in ended:
            self.used -= self.leases.pop(grant)[1]
        self.lapsed.update(ended)
        self.first_end = min((end for end, _ in self.leases.values()), default=NEVER)


Cell = Bucket | Counter


class MemoryLimiter:
    """At most `max_cells` counts; idle ones are forgotten, two looked at for each one made."""

    def __init__(
        self,
        *,
        seed: Seed | None = None,
        clock_ms: Callable[[], int] = monotonic_ms,
        wall: Callable[[], float] = time.time,
        max_cells: int = 1_000_000,
    ) -> None:
        self._clock_ms = clock_ms
        self._calendar = Calendar(wall)
        self._spent = Spent(seed)
        self._max_cells = max_cells
        self._cells: OrderedDict[Key, Cell] = OrderedDict()
        self._ids = grant_ids()

    def __len__(self) -> int:
        return len(self._cells)

    async def reserve(self, demands: Sequence[Demand], lease_s: float) -> Grant | Refusal:
        if refusal := too_large(demands):
            return refusal
        keys = [(d.subject, d.rule.kind, self._calendar.window(d.rule.kind)) for d in demands]
        spent = {}
        for key in keys:
            if key[2] and key not in self._cells:
                spent[key] = await self._spent(*key)
        # No await from here on: this is what makes it one step.
        now = self._clock_ms()
        if self._is_full(keys, now):
            return Refusal(demands[0], "full", 1.0)
        size = max(len(self._cells), MAX_IDLE)
        cells = [self._cells.get(key) or self._open(key, spent.get(key, 0), now) for key in keys]
        outcome = self._decide(demands, keys, cells, lease_s, now)
        if len(self._cells) > size:
            self._forget_idle(2 * (len(self._cells) - size), now)
        return outcome

    async def settle(self, grant: Grant, used: Amounts) -> None:
        now = self._clock_ms()
        for demand, window in zip(grant.demands, grant.windows, strict=True):
            kind = demand.rule.kind
            key = demand.subject, kind, window
            cell = self._cells.get(key)
            if not cell and not window:  # a window that is not known begins with a seed
                cell = self._open(key, 0, now)
            if cell:
                cell.settle(grant.id, demand, used.of(kind), now)

    async def renew(self, grant: Grant) -> bool:
        now = self._clock_ms()
        until = now + int(grant.lease_s * 1000)
        renewed = []
        for demand, window in zip(grant.demands, grant.windows, strict=True):
            kind = demand.rule.kind
            cell = self._cells.get((demand.subject, kind, window))
            renewed.append(cell.renew(grant.id, now, until) if cell else kind in BUCKETS)
        return all(renewed)

    async def aclose(self) -> None:
        """Nothing is ever under way."""

    def _decide(
        self,
        demands: Sequence[Demand],
        keys: list[Key],
        cells: list[Cell],
        lease_s: float,
        now: int,
    ) -> Grant | Refusal:
        triples = [
            (cell, d.amount, d.rule.capacity) for cell, d in zip(cells, demands, strict=True)
        ]
        waits = [cell.wait(amount, capacity, now) for cell, amount, capacity in triples]
        if any(waits):
            levels = [cell.level(capacity) for cell, _, capacity in triples]
            return self._calendar.refuse(demands, waits, levels)
        grant = next(self._ids)
        until = now + int(lease_s * 1000)
        levels = []
        for cell, amount, capacity in triples:
            cell.take(grant, amount, until)
            levels.append(cell.level(capacity))
        windows = tuple([key[2] for key in keys])
        return Grant(grant, tuple(demands), windows, lease_s, tuple(levels))

    def _is_full(self, keys: list[Key], now: int) -> bool:
        if len(self._cells) + len(keys) <= self._max_cells:
            return False
        self._forget_idle(2 * len(keys), now)
        return sum(key not in self._cells for key in keys) > self._max_cells - len(self._cells)

    def _open(self, key: Key, spent: int, now: int) -> Cell:
        cell: Cell = Bucket(now) if key[1] in BUCKETS else Counter(spent)
        self._cells[key] = cell
        return cell

    def _forget_idle(self, looks: int, now: int) -> None:
        for _ in range(min(looks, len(self._cells))):
            key, cell = next(iter(self._cells.items()))
            if cell.is_idle(now, key[2] != self._calendar.window(key[1])):
                del self._cells[key]
            else:
                self._cells.move_to_end(key)
