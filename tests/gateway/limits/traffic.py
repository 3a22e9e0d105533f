"""One gateway's worth of unkind traffic: `traffic.py URL SEED REQUESTS CONCURRENCY`.

Requests are cancelled, fail and dawdle past their lease. Besides the limiter a witness counts, with
plain commands of its own: after a grant up, before a settlement down. So it never sees more than is
really reserved, and if it ever sees more than a limit, the limit was passed. Prints one JSON line.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

from redis.asyncio import Redis

from gateway.limits import Admission, Amounts, Grant, demands_for
from gateway.limits.redis import RedisLimiter
from gateway.limits.rules import Rule
from gateway.redis_link import RedisLink

RULES = {
    "global": (Rule("concurrent", 60), Rule("cost_per_day", 500_000, "closed")),
    "family:town": (
        Rule("tokens_per_minute", 40_000),
        Rule("cost_per_month", 9_000_000, "closed"),
    ),
    "key:a": (Rule("requests_per_minute", 450), Rule("concurrent", 40)),
    "key:b": (Rule("requests_per_minute", 450), Rule("concurrent", 40)),
}
LEASE_S = 5.0
# Up or down by one slot and some cost, for everybody and for the key; returns the new counts.
COUNT = """
local seen = {}
for i, key in ipairs(KEYS) do seen[i] = redis.call('INCRBY', key, ARGV[i]) end
return seen
"""


class Stumble(Exception):
    pass


class Traffic:
    def __init__(self, url: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.link = RedisLink.open(url, timeout_s=60.0)
        self.limiter = RedisLimiter(self.link, local_share=0.25)
        self.admission = Admission(self.limiter, lease_s=LEASE_S)
        self.redis = Redis.from_url(url, protocol=2)
        self.finishing: set[asyncio.Task[None]] = set()
        self.seen: dict[str, int] = {}  # the most that the witness saw
        self.taken: list[tuple[float, int]] = []  # tokens: after a grant +, before settling -
        self.cost = 0
        self.outcomes: dict[str, int] = {}

    async def witness(self, key: str, slots: int, cost: int) -> None:
        names = ["global:concurrent", f"key:{key}:concurrent", "global:cost_per_day"]
        keys = [f"witness:{name}" for name in names]
        seen = await self.redis.eval(COUNT, len(keys), *keys, slots, slots, cost)  # type: ignore[misc]
        for name, count in zip(names, seen, strict=True):
            self.seen[name] = max(self.seen.get(name, 0), count)

    async def request(self) -> None:
        key = self.random.choice("ab")
        bound = Amounts(tokens=self.random.randint(1, 200), cost=self.random.randint(1, 2_000))
        subjects = [(name, RULES[name]) for name in ("global", "family:town", f"key:{key}")]
        grant = await self.admission.reserve(demands_for(subjects, bound))
        if not isinstance(grant, Grant):
            self.count(f"refused {grant.demand.rule.kind}")
            await asyncio.sleep(self.random.random() / 50)
            return
        self.taken.append((time.time(), bound.tokens))
        counted = asyncio.ensure_future(self.witness(key, 1, bound.cost))
        share = self.random.random()
        try:
            await asyncio.shield(counted)
            slow = self.random.random() < 0.005
            await asyncio.sleep(1.5 * LEASE_S if slow else self.random.expovariate(50))
            if self.random.random() < 0.1:
                raise Stumble
            self.count("slow" if slow else "finished")
        finally:
            used = Amounts(tokens=int(bound.tokens * share), cost=int(bound.cost * share))
            task = asyncio.ensure_future(self.finish(key, grant, bound, used, counted))
            self.finishing.add(task)
            task.add_done_callback(self.finishing.discard)

    async def finish(
        self, key: str, grant: Grant, bound: Amounts, used: Amounts, counted: Any
    ) -> None:
        await counted
        await self.witness(key, -1, used.cost - bound.cost)
        self.taken.append((time.time(), used.tokens - bound.tokens))
        self.cost += used.cost
        await self.admission.settle(grant, used)

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    async def client(self, requests: int) -> None:
        for _ in range(requests):
            task = asyncio.ensure_future(self.request())
            if self.random.random() < 0.1:
                await asyncio.sleep(self.random.random() / 100)
                task.cancel()
            try:
                await task
            except (Stumble, asyncio.CancelledError) as error:
                self.count(type(error).__name__)


async def main(url: str, seed: int, requests: int, concurrency: int) -> None:
    traffic = Traffic(url, seed)
    await asyncio.gather(*(traffic.client(requests // concurrency) for _ in range(concurrency)))
    while traffic.finishing:
        await asyncio.wait(traffic.finishing)
    await traffic.admission.aclose()
    await traffic.link.aclose()
    await traffic.redis.aclose()
    print(
        json.dumps(
            {
                "seen": traffic.seen,
                "taken": traffic.taken,
                "cost": traffic.cost,
                "outcomes": traffic.outcomes,
                "local": traffic.limiter.num_local,
                "unheard": traffic.limiter.num_unheard,
                "lapsed": traffic.admission.num_lapsed,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
