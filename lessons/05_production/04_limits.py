"""How does one keep a crowd from spoiling it for everybody, and a loop from spending it all?

Three shapes of limit. A bucket of tokens lets a burst pass and holds the rate: it refills evenly.
Slots hold what runs at once, which is what fills a machine. A window of money ends where the budget
ends. All are taken before a request costs anything, by an upper bound, because nobody knows how
long an answer will be; what was not used is given back. This is the gateway's own limiter, on a
clock that we move.
"""

import asyncio
from collections.abc import Sequence
from functools import cache

from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import Amounts, Demand, Grant, Rule
from lessons.stack import running
from lessons.story import Claim, Exercise, Result

MINUTE_MS = 60_000
SLOTS = Rule("concurrent", 10)


class Bench:
    """A limiter, and the time as it sees it."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.limiter = MemoryLimiter(clock_ms=lambda: self.now_ms, wall=lambda: self.now_ms / 1000)

    def take(self, *demands: Demand) -> Grant | None:
        got = asyncio.run(self.limiter.reserve(demands, lease_s=60))
        return got if isinstance(got, Grant) else None

    def give_back(self, grant: Grant, used: int) -> None:
        asyncio.run(self.limiter.settle(grant, Amounts(tokens=used)))


def passed(rate_per_minute: int, ask_every_ms: int, minutes: int) -> list[int]:
    """Requests that passed in each minute, of one that never stops asking.

    >>> passed(60, 100, 3)
    [119, 60, 60]
    """
    bench, rule = Bench(), Rule("requests_per_minute", rate_per_minute)
    counts = [0] * minutes
    while bench.now_ms < minutes * MINUTE_MS:
        counts[bench.now_ms // MINUTE_MS] += bench.take(Demand("key:a", rule, 1)) is not None
        bench.now_ms += ask_every_ms
    return counts


def reserved(num_used: int, settles: bool) -> int:
    """Of a bucket of 10,000 tokens: requests that pass when each reserves 1,000 and uses less."""
    bench, rule, count = Bench(), Rule("tokens_per_minute", 10_000), 0
    while grant := bench.take(Demand("key:a", rule, 1000)):
        count += 1
        if settles:
            bench.give_back(grant, num_used)
    return count


def neighbours(limits: Sequence[Demand]) -> int:
    """Of ten places: how many are left to another key, once a flood has taken what it can?"""
    bench = Bench()
    everybody = Demand("global", SLOTS, 1)
    while bench.take(everybody, *limits):
        pass
    count = 0
    while bench.take(everybody, Demand("key:quiet", SLOTS, 1)):
        count += 1
    return count


CONFIG = """
[upstreams.up]
base_url = "{upstream}/v1"
model = "ok"
prices = [{{ completion = 1000 }}]
[families.town]
labels = {{ production = "town-1" }}
limits = "purse"
[releases.town-1]
family = "town"
upstream = "up"
cache = {{ ttl_s = 0 }}
[limits.purse]
cost_per_day = 0.6
"""


@cache
def loop() -> tuple[list[int], float, str]:
    """A program that asks thirty times: statuses, dollars in the ledger, the last answer's code."""
    with running(CONFIG, ("loadtests.faults",)) as stack:
        replies = [stack.ask("town", max_tokens=60) for _ in range(30)]
        spent = stack.metric("glassgate_cost_usd_total", family="town")
    return [it.status for it in replies], spent, replies[-1].body["error"]["type"]


def run() -> Result:
    first, second, third = passed(60, 100, 3)
    mine = Demand("key:loud", Rule("concurrent", 6), 1)
    return {
        "60 a minute: passed in the first minute": Claim(first, 119, 120),
        "in the second and third": Claim((second + third) / 2, 60, 60),
        "reserving 1,000, using 100, never settled: passed": Claim(reserved(100, False), 10, 10),
        "settled at once: passed": Claim(reserved(100, True), 91, 91),
        "places left by a flood without a limit": Claim(neighbours(()), 0, 0),
        "places left by a flood that may have six": Claim(neighbours((mine,)), 4, 4),
        "a loop with $0.60 a day: answered": Claim(loop()[0].count(200), 10, 10),
        "dollars that it spent": Claim(loop()[1], 0.5999, 0.6001),
    }


EXERCISES = (
    Exercise(
        "How long must one wait after using up 60 a minute, until ten pass at once [s]?",
        10,
        lambda: 10 * 60 / 60,
    ),
    Exercise(
        "Clients retry a 429. Which type of error tells them that a retry is of no use today?",
        "insufficient_quota",
        lambda: loop()[2],
    ),
    Exercise(
        "A limit of 6 for each key, and two that flood: how many of ten places are left?",
        0,
        lambda: max(0, 10 - 2 * 6),
    ),
)
