"""Which replica of an upstream: the better of two, by attempts in flight and latency.

One `Pool` per process owns what is known of every replica: its load, its breaker and how long it
asked to be left alone. Health comes from the traffic itself; a replica whose breaker is open is
asked for the unpaid model list until it answers.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Collection
from typing import Literal, Self

from cachetools import LRUCache

from gateway.config import BreakerPolicy
from gateway.routing.breaker import Breaker
from gateway.routing.complaints import Complaints
from gateway.upstream import Client, Target, UpstreamError

MAX_REPLICAS = 1024
DECAY_S = 10.0
PENALTY_S = 5.0
MAX_HOLD_S = 60.0  # however long an upstream wants to be left alone
PROBE_S = 3.0
FORGET_S = 600.0  # unasked for so long, an open replica is probed no more but forgotten


State = Literal["closed", "held", "open", "half_open"]  # held: closed, but wants to be left alone


class Replica:
    """One base URL of a target, and what is known of it."""

    def __init__(self, base_url: str, policy: BreakerPolicy) -> None:
        self.base_url = base_url
        self.breaker = Breaker(policy)
        self.num_in_flight = 0
        self.held_until = -math.inf
        self.is_limited = False  # it was a 429 that held it last
        self.asked_at = 0.0
        self._latency = 0.0
        self._seen_at = -math.inf

    def observe(self, seconds: float, now: float) -> None:
        """Fold a latency into the mean, in which what is DECAY_S old weighs 1/e."""
        share = math.exp((self._seen_at - now) / DECAY_S)
        self._latency = share * self._latency + (1 - share) * seconds
        self._seen_at = now

    def penalise(self, now: float) -> None:
        """A failure counts at once, lest a replica that fails fast draws the traffic."""
        self._latency, self._seen_at = max(self._latency, PENALTY_S), now

    def state(self, now: float) -> State:
        is_held = self.breaker.state == "closed" and self.held_until > now
        return "held" if is_held else self.breaker.state

    def load(self, now: float) -> float:
        """Lower is better. One that was not asked for long decays to 'worth a try'."""
        return (self.num_in_flight + 1) * self._latency * math.exp((self._seen_at - now) / DECAY_S)


class Lease:
    """One attempt at one replica, from the choice to the verdict, inside `with`."""

    def __init__(self, pool: "Pool", target: Target, replica: Replica) -> None:
        self.target = target
        self.base_url = replica.base_url
        self._pool = pool
        self._replica = replica
        self._is_trial = False
        self._started = 0.0
        self._has_begun = False

    def __enter__(self) -> Self:
        self._is_trial = self._replica.breaker.take()
        self._replica.num_in_flight += 1
        self._started = self._replica.asked_at = _now()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._replica.num_in_flight -= 1
        if error is None:
            self.began()
            self._replica.breaker.succeeded(_now())
        elif isinstance(error, UpstreamError):
            self._failed(error)
        else:
            self._replica.breaker.abandoned(self._is_trial)

    def began(self) -> None:
        """The first token, or all of an answer in one piece, is here."""
        if self._has_begun:
            return
        self._has_begun = True
        now = _now()
        self._replica.observe(now - self._started, now)
        if self._is_trial:
            self._replica.breaker.succeeded(now, is_trial=True)
            self._is_trial = False

    def _failed(self, error: UpstreamError) -> None:
        now = _now()
        breaker = self._replica.breaker
        if error.retry_after is not None:
            self._replica.held_until = now + min(error.retry_after, MAX_HOLD_S)
            self._replica.is_limited = error.status == 429
        if error.status is not None and error.status < 500:
            breaker.succeeded(now, self._is_trial)  # it is alive: it said no
            return
        self._replica.penalise(now)
        breaker.failed(now, self._is_trial, error.is_timeout)
        self._pool.watch(self.target, self._replica)


class Pool:
    def __init__(
        self, client: Client, policy: BreakerPolicy | None = None, rng: random.Random | None = None
    ) -> None:
        self.client = client
        self.complaints = Complaints()
        self.rng = rng or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._policy = policy or BreakerPolicy()
        self._replicas: LRUCache[tuple[str, str, str], Replica] = LRUCache(MAX_REPLICAS)
        self._probes: dict[Replica, asyncio.Task[None]] = {}

    async def close(self) -> None:
        for task in self._probes.values():
            task.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)

    def replicas(self, target: Target) -> list[Replica]:
        """A model has its own breaker: an upstream may fail for one and serve another."""
        found = []
        for url in target.base_urls:
            key = (target.name, target.model, url)
            if key not in self._replicas:
                self._replicas[key] = Replica(url, self._policy)
            found.append(self._replicas[key])
        return found

    def states(self, target: Target) -> Counter[State]:
        return Counter(r.state(_now()) for r in self.replicas(target))

    def in_flight(self, target: Target) -> int:
        return sum(r.num_in_flight for r in self.replicas(target))

    def pick(self, target: Target, avoid: Collection[str] = ()) -> Lease | None:
        """A replica that may be asked now, if possible none of those to `avoid` (base URLs)."""
        now = _now()
        able = [r for r in self.replicas(target) if r.breaker.admits and r.held_until <= now]
        able = [r for r in able if r.base_url not in avoid] or able
        if not able:
            return None
        trials = [r for r in able if r.breaker.state == "half_open"]
        two = trials[:1] or (able if len(able) <= 2 else self.rng.sample(able, 2))
        return Lease(self, target, min(two, key=lambda r: (r.load(now), r.num_in_flight)))

    def held_for(self, target: Target) -> float:
        """Seconds until a replica that only wants to be left alone may be asked; inf if none is."""
        waits = [r.held_until - _now() for r in self.replicas(target) if r.breaker.admits]
        return max(0.0, min(waits, default=math.inf))

    def opens_in(self, target: Target) -> float:
        """Seconds until it is worth asking for `target` again, at the earliest."""
        shut = (r.breaker.cooldown for r in self.replicas(target) if not r.breaker.admits)
        return min([self.held_for(target), *shut])

    def is_limited(self, target: Target) -> bool:
        """Is none of its replicas broken, and each held by a 429 of its own?"""
        return all(r.is_limited and r.breaker.admits for r in self.replicas(target))

    def watch(self, target: Target, replica: Replica) -> None:
        """See to it that an open replica is probed."""
        if replica.breaker.state == "open" and replica not in self._probes:
            self._probes[replica] = asyncio.create_task(self._probe(target, replica))

    async def _probe(self, target: Target, replica: Replica) -> None:
        try:
            while replica.breaker.state == "open":
                await asyncio.sleep(replica.breaker.cooldown)
                if _now() - replica.asked_at > FORGET_S:
                    self._replicas.pop((target.name, target.model, replica.base_url), None)
                    return
                alive = await self.client.is_alive(target, replica.base_url, PROBE_S)
                replica.breaker.probed(alive)
        finally:
            del self._probes[replica]


def _now() -> float:
    return asyncio.get_running_loop().time()
