"""The words of the limits: rules, demands, grants, refusals. It counts nothing itself."""

import datetime
import itertools
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from gateway.config import Limits

Kind = Literal[
    "requests_per_minute", "tokens_per_minute", "concurrent", "cost_per_day", "cost_per_month"
]
BUCKETS = frozenset[Kind](("requests_per_minute", "tokens_per_minute"))
WINDOWS = frozenset[Kind](("cost_per_day", "cost_per_month"))

NANO = 10**9  # nano-dollars of a dollar
GRAINS = 60_000  # of a unit: a bucket of capacity C refills exactly C grains a millisecond
SLOT_WAIT_MS = 1_000  # nobody knows when a stream ends: a hint
AT_THE_END = -1  # a wait or reset that lasts as long as the window, or some stream
# Counts are exact in Lua's doubles: up to 2**53 nano-dollars, or 2**53 grains.
MAX_CAPACITY = 2**53 // GRAINS
MAX_COST = 2**53


class Amounts(msgspec.Struct, frozen=True):
    """What one request asks for or has used; cost in nano-dollars."""

    requests: int = 1
    tokens: int = 0
    cost: int = 0

    def of(self, kind: Kind) -> int:
        if kind == "requests_per_minute":
            return self.requests
        if kind == "tokens_per_minute":
            return self.tokens
        return self.cost if kind in WINDOWS else 0  # a finished request holds no slot


NOTHING = Amounts(requests=0)


class Rule(msgspec.Struct, frozen=True):
    """`capacity` units a minute, at once, a day or a month. `silent`: when Redis does not answer,
    go on with a local share of it, or refuse."""

    kind: Kind
    capacity: int
    silent: Literal["open", "closed"] = "open"

    def __post_init__(self) -> None:
        most = MAX_COST if self.kind in WINDOWS else MAX_CAPACITY
        if not 0 < self.capacity <= most:
            raise ValueError(f"{self.kind}: {self.capacity} is not in 1…{most}")

    @property
    def limit_class(self) -> Literal["quota", "spend"]:
        return "spend" if self.kind in WINDOWS else "quota"


class Demand(msgspec.Struct, frozen=True):
    """`amount` under `rule` of `subject`, such as `key:ab12`, `team:search` or `global`."""

    subject: str
    rule: Rule
    amount: int


Level = tuple[int, int]  # units left, and ms until all are free again (or AT_THE_END)


class Grant(msgspec.Struct, frozen=True):
    """Leave to go on, to be settled once. Plain data: a journal may keep it, and a gateway that
    starts again settle it. Per demand: the calendar window it was taken in, and what is left."""

    id: str
    demands: tuple[Demand, ...]
    windows: tuple[str, ...]
    lease_s: float
    levels: tuple[Level, ...] = ()
    is_local: bool = False  # out of the local share, while Redis was silent


class Refusal(msgspec.Struct, frozen=True):
    """Nothing was taken. `demand` is the one with the longest wait.

    limited    no room now; after `retry_after_s` [s] there is, if nobody else comes
    too_large  more than the rule ever has: `retry_after_s` is None
    silent     the counts cannot be read, and the rule is closed then
    full       the memory of the limits is bounded: no room to count this subject
    """

    demand: Demand
    reason: Literal["limited", "too_large", "silent", "full"]
    retry_after_s: float | None
    demands: tuple[Demand, ...] = ()
    levels: tuple[Level, ...] = ()

    @property
    def message(self) -> str:
        rule = f"{self.demand.rule.kind.replace('_', ' ')} of {self.demand.subject}"
        if self.reason == "limited" and self.retry_after_s is not None:
            wait = duration(math.ceil(self.retry_after_s * 1000))
            return f"the limit on {rule} is reached; there is room in {wait}"
        if self.reason == "too_large":
            return f"the request alone is more than the limit on {rule} ever allows"
        return f"the limit on {rule} cannot be checked now"


class Limiter(Protocol):
    async def reserve(self, demands: Sequence[Demand], lease_s: float) -> Grant | Refusal:
        """All demands or none. Cancelled, it leaves nothing behind."""

    async def settle(self, grant: Grant, used: Amounts) -> None:
        """Replace what was reserved by what was used. Once per grant; never raises."""

    async def renew(self, grant: Grant) -> bool:
        """Hold for another `lease_s`. False: the lease had ended, the slots are others' now."""

    async def aclose(self) -> None:
        """Finish what is under way."""


# Nano-dollars that a subject has spent since the first day of a window.
Seed = Callable[[str, datetime.date], Awaitable[int]]


def rules_of(limits: Limits) -> tuple[Rule, ...]:
    """A limit class of the configuration as rules; spend is always closed when Redis is silent."""
    quota: list[tuple[Kind, int]] = [
        ("requests_per_minute", limits.requests_per_minute),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("concurrent", limits.concurrent),
    ]
    spend: list[tuple[Kind, int]] = [
        ("cost_per_day", int(limits.cost_per_day * NANO)),
        ("cost_per_month", int(limits.cost_per_month * NANO)),
    ]
    return tuple(
        Rule(kind, capacity, policy)
        for rules, policy in ((quota, limits.silent), (spend, "closed"))
        for kind, capacity in rules
        if capacity
    )


def demands_for(
    subjects: Iterable[tuple[str, Sequence[Rule]]], bound: Amounts
) -> tuple[Demand, ...]:
    """One demand per rule of each subject; a request takes one slot while it runs."""
    return tuple(
        Demand(subject, rule, 1 if rule.kind == "concurrent" else bound.of(rule.kind))
        for subject, rules in subjects
        for rule in rules
    )


def too_large(demands: Sequence[Demand]) -> Refusal | None:
    for demand in demands:
        if demand.amount > demand.rule.capacity:
            return Refusal(demand, "too_large", None)
    return None


def grant_ids() -> Iterator[str]:
    """Names that no other process gives."""
    origin = secrets.token_hex(6)
    for n in itertools.count():
        yield f"{origin}-{n}"


def duration(ms: int) -> str:
    """As OpenAI writes one: `0s`, `120ms`, `8.64s`, `6m0s`, `1h0m0s`."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
