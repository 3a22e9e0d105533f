"""What the spine calls: reserve, through a queue where a family has one, and settle.

The queue is first come, first served per rule: who is refused by a rule stands in that rule's line,
and only the head of a line asks again, when its wait is over or somebody here has settled under
that rule. So one key at its limit delays nobody else. It also keeps the leases of long requests
alive. It does not know what a request is.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from gateway.limits.rules import Amounts, Demand, Grant, Kind, Limiter, Refusal

POLL_S = 0.05  # how often the head of a line looks for what other gateways have given back

Waited = Literal["granted", "refused", "cancelled"]
Place = tuple[str, Kind]  # subject, kind of rule


class QueuePolicy(msgspec.Struct, frozen=True):
    """At most `length` requests of `name` (a family) wait, each at most `wait_s` [s]."""

    name: str
    length: int
    wait_s: float


@dataclass(slots=True, eq=False)
class Line:
    refusal: Refusal  # the last one at its head
    turns: deque[asyncio.Event] = field(default_factory=deque)

    def wake(self) -> None:
        if self.turns:
            self.turns[0].set()


class Admission:
    """`observe(outcome, seconds)` hears of every wait in the queue."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        lease_s: float = 60.0,
        observe: Callable[[Waited, float], None] = lambda outcome, seconds: None,
    ) -> None:
        self._limiter = limiter
        self._lease_s = lease_s
        self._observe = observe
        self._lines: dict[Place, Line] = {}
        self._waiting: Counter[str] = Counter()
        self._held: dict[str, Grant] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.num_lapsed = 0  # leases found ended while their request still ran, for the metrics

    def num_waiting(self, name: str) -> int:
        return self._waiting[name]

    @property
    def num_held(self) -> int:
        return len(self._held)

    async def reserve(
        self, demands: Sequence[Demand], queue: QueuePolicy | None = None
    ) -> Grant | Refusal:
        """Cancelled, it leaves nothing behind. A family without a queue passes by the lines."""
        line = self._line_ahead(demands) if queue and self._lines else None
        outcome = line.refusal if line else await self._ask(demands)
        if queue and isinstance(outcome, Refusal) and self._may_wait(queue, outcome):
            outcome = await self._wait(demands, queue, outcome)
        if isinstance(outcome, Grant):
            self._held[outcome.id] = outcome
            self._keeper = self._keeper or asyncio.create_task(self._keep())
        return outcome

    async def settle(self, grant: Grant, used: Amounts) -> None:
        """Once per grant, also one that a journal has kept."""
        self._held.pop(grant.id, None)
        try:
            await self._limiter.settle(grant, used)
        finally:
            if self._lines:
                for demand in grant.demands:
                    if line := self._lines.get((demand.subject, demand.rule.kind)):
                        line.wake()

    async def aclose(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._limiter.aclose()

    def _ask(self, demands: Sequence[Demand]) -> Awaitable[Grant | Refusal]:
        return self._limiter.reserve(demands, self._lease_s)

    def _line_ahead(self, demands: Sequence[Demand]) -> Line | None:
        lines = (self._lines.get((demand.subject, demand.rule.kind)) for demand in demands)
        return next(filter(None, lines), None)

    def _may_wait(self, queue: QueuePolicy, refusal: Refusal) -> bool:
        if refusal.retry_after_s is None or self._waiting[queue.name] >= queue.length:
            return False
        in_time = refusal.retry_after_s <= queue.wait_s or _may_come_early(refusal)
        return refusal.reason == "limited" and in_time

    async def _wait(
        self, demands: Sequence[Demand], queue: QueuePolicy, outcome: Grant | Refusal
    ) -> Grant | Refusal:
        start = time.monotonic()
        waited: Waited = "cancelled"
        self._waiting[queue.name] += 1
        try:
            try:
                async with asyncio.timeout(queue.wait_s):
                    while isinstance(outcome, Refusal) and outcome.reason == "limited":
                        outcome = await self._stand(demands, outcome)
            except TimeoutError:
                outcome = await self._ask(demands)  # once more: the answer is exact for this moment
            waited = "granted" if isinstance(outcome, Grant) else "refused"
            return outcome
        finally:
            self._waiting[queue.name] -= 1
            self._observe(waited, time.monotonic() - start)

    async def _stand(self, demands: Sequence[Demand], refusal: Refusal) -> Grant | Refusal:
        """In the line of the rule that refused, until it grants or another rule refuses."""
        place = refusal.demand.subject, refusal.demand.rule.kind
        line = self._lines.setdefault(place, Line(refusal))
        turn = asyncio.Event()
        line.turns.append(turn)
        try:
            while True:
                await _pause(turn, line)
                if line.turns[0] is not turn:
                    continue
                outcome = await self._ask(demands)
                if isinstance(outcome, Grant) or place != (
                    outcome.demand.subject,
                    outcome.demand.rule.kind,
                ):
                    return outcome
                line.refusal = outcome
        finally:
            line.turns.remove(turn)
            line.wake()
            if not line.turns:
                del self._lines[place]

    async def _keep(self) -> None:
        """Renew, every third of a lease, what was held a third of a lease ago."""
        while True:
            before = list(self._held)
            await asyncio.sleep(self._lease_s / 3)
            for name in before:
                grant = self._held.get(name)
                if grant and not await self._limiter.renew(grant):
                    self.num_lapsed += 1


async def _pause(turn: asyncio.Event, line: Line) -> None:
    """Until woken; at the head also until the rule may have room."""
    seconds = None
    if line.turns[0] is turn:
        seconds = line.refusal.retry_after_s or POLL_S
        if _may_come_early(line.refusal):
            seconds = min(seconds, POLL_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await turn.wait()
    turn.clear()


def _may_come_early(refusal: Refusal) -> bool:
    """Tokens and slots are given back when others settle; requests are not."""
    return refusal.demand.rule.kind in ("tokens_per_minute", "concurrent")
