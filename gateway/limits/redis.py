"""The limits of many gateways: counts in one Redis, changed by `limits.lua` in one round trip.

All keys carry one hash tag, so a cluster keeps them on one shard: a request that is counted for its
key and for everybody needs both counts in one place. Redis must not evict (`noeviction`).

When Redis is silent a quota goes on with a local share, counted in this process, and what is closed
is refused. Settlements that Redis did not hear are kept, bounded, and told when it answers again;
the script knows which it has heard. Only counters are told late: a bucket heals by itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import (
    BUCKETS,
    NOTHING,
    WINDOWS,
    Amounts,
    Demand,
    Grant,
    Refusal,
    Rule,
    Seed,
    grant_ids,
    too_large,
)
from gateway.limits.windows import Calendar, Spent
from gateway.redis_link import RedisLink, RedisSilent, Script

SCRIPT = Script((Path(__file__).parent / "limits.lua").read_text())
MAX_UNHEARD = 10_000
LATE_MS = 24 * 3600 * 1000  # how long after a window's end a settlement still finds it


class RedisLimiter:
    """`local_share` of each quota is what this process grants alone: 1 / number of gateways."""

    def __init__(
        self,
        link: RedisLink,
        *,
        local_share: float,
        seed: Seed | None = None,
        clock_ms: Callable[[], int] | None = None,  # none: the server's own
        wall: Callable[[], float] = time.time,
        prefix: str = "glassgate",
    ) -> None:
        self._link = link
        self._share = local_share
        self._local = MemoryLimiter()
        self._clock_ms = clock_ms
        self._calendar = Calendar(wall)
        self._spent = Spent(seed)
        self._prefix = f"{prefix}:{{limits}}"
        self._ids = grant_ids()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unheard: deque[tuple[Grant, Amounts]] = deque(maxlen=MAX_UNHEARD)
        self.num_local = 0  # grants out of the local share, for the metrics
        self.num_forgotten = 0  # settlements that were never told: more than are kept

    @property
    def num_unheard(self) -> int:
        return len(self._unheard)

    async def reserve(self, demands: Sequence[Demand], lease_s: float) -> Grant | Refusal:
        if refusal := too_large(demands):
            return refusal
        windows = tuple(self._calendar.window(demand.rule.kind) for demand in demands)
        draft = Grant(next(self._ids), tuple(demands), windows, lease_s)
        # Cancelled in the middle, nobody would know whether it was granted: so it ends by itself.
        task = self._spawn(self._reserve(draft))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    async def settle(self, grant: Grant, used: Amounts) -> None:
        if grant.is_local:
            return await self._local.settle(grant, used)
        return await asyncio.shield(self._spawn(self._settle(grant, used)))

    async def renew(self, grant: Grant) -> bool:
        if grant.is_local:
            return await self._local.renew(grant)
        try:
            return bool(await self._run("renew", grant, [0] * len(grant.demands)))
        except RedisSilent:
            return False

    async def aclose(self) -> None:
        """Wait for what is under way and tell what Redis has not heard, if it listens."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tell()

    async def _reserve(self, draft: Grant) -> Grant | Refusal:
        try:
            status, reply = await self._ask(draft)
        except RedisSilent as silence:
            if silence.was_asked:
                self._remember(draft, NOTHING)
            return await self._reserve_alone(draft, silence.retry_after_s)
        if self._unheard:
            self._spawn(self._tell())
        levels = tuple((left, reset) for _, left, reset in reply)
        if status == b"granted":
            return msgspec.structs.replace(draft, levels=levels)
        return self._calendar.refuse(draft.demands, [wait for wait, _, _ in reply], levels)

    async def _ask(self, draft: Grant) -> Any:
        """The script's answer, after telling it what was spent in windows that it does not know."""
        spent: list[Any] = ["?" if window else 0 for window in draft.windows]
        while True:
            status, reply = await self._run("reserve", draft, spent)
            if status != b"unknown":
                return status, reply
            for i in reply:
                demand = draft.demands[i]
                spent[i] = await self._spent(demand.subject, demand.rule.kind, draft.windows[i])

    async def _reserve_alone(self, draft: Grant, retry_after_s: float) -> Grant | Refusal:
        for demand in draft.demands:
            if demand.rule.silent == "closed":
                return Refusal(demand, "silent", retry_after_s)
        shares = [
            Demand(demand.subject, self._shared(demand.rule), demand.amount)
            for demand in draft.demands
        ]
        outcome = await self._local.reserve(shares, draft.lease_s)
        if isinstance(outcome, Grant):
            self.num_local += 1
            return msgspec.structs.replace(outcome, is_local=True)
        if outcome.reason == "too_large":  # for the share, not for the rule
            return msgspec.structs.replace(outcome, reason="silent", retry_after_s=retry_after_s)
        return outcome

    def _shared(self, rule: Rule) -> Rule:
        return msgspec.structs.replace(rule, capacity=max(1, int(rule.capacity * self._share)))

    async def _settle(self, grant: Grant, used: Amounts) -> None:
        try:
            await self._run("settle", grant, [used.of(d.rule.kind) for d in grant.demands])
        except RedisSilent:
            self._remember(grant, used)

    def _remember(self, grant: Grant, used: Amounts) -> None:
        self.num_forgotten += len(self._unheard) == MAX_UNHEARD
        self._unheard.append((grant, used))

    async def _tell(self) -> None:
        """What was not heard, oldest first, until it is or Redis is silent again."""
        while self._unheard and not self._link.is_silent:
            grant, used = self._unheard.popleft()
            pairs = [
                (demand, window)
                for demand, window in zip(grant.demands, grant.windows, strict=True)
                if demand.rule.kind not in BUCKETS
            ]
            if pairs:
                demands, windows = zip(*pairs, strict=True)
                await self._settle(Grant(grant.id, demands, windows, grant.lease_s), used)

    def _give_back(self, task: "asyncio.Task[Grant | Refusal]") -> None:
        if not task.cancelled() and task.exception() is None:
            outcome = task.result()
            if isinstance(outcome, Grant):
                self._spawn(self.settle(outcome, NOTHING))

    async def _run(self, verb: str, grant: Grant, extra: Sequence[Any]) -> Any:
        now = self._clock_ms() if self._clock_ms else ""
        keys: list[str] = []
        args: list[Any] = [verb, grant.id, int(grant.lease_s * 1000), now]
        for demand, window, last in zip(grant.demands, grant.windows, extra, strict=True):
            rule = demand.rule
            key = f"{self._prefix}:{demand.subject}:{rule.kind}:{window}"
            keys += key, f"{key}:leases"
            keep = 0
            shape = "bucket" if rule.kind in BUCKETS else "slot"
            if rule.kind in WINDOWS:
                shape, keep = "window", self._calendar.ms_left(rule.kind) + LATE_MS
            args += shape, demand.amount, rule.capacity, keep, last
        return await self._link.run(SCRIPT, keys, args)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
