"""A GPU server on a clock that only moves when told to, for the lessons on production.

The scheduler, the blocks of the cache and the limits are those that serve; only the network is
replaced by what its steps would cost (`model.engine.cost`). An hour there takes seconds here.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from gateway.config_file import DEFAULT_PATH
from model.engine.clock import VirtualClock
from model.engine.cost import load_profile
from model.engine.emulated import Babble, emulated_engine
from model.engine.engine import Engine
from model.engine.sequence import Request, SamplingParams
from model.tokenizer import Tokenizer

PROFILES = DEFAULT_PATH.parent / "profiles"


@dataclass(frozen=True)
class Job:
    """A request: when it comes [s], and its tokens in and out; all jobs share their first ones."""

    at: float
    num_prompt: int
    num_output: int
    num_shared: int = 0


@dataclass
class Done:
    """What became of a job. Times [s] on the machine's clock."""

    job: Job
    first: float = 0.0
    last: float = 0.0
    num_cached: int = 0

    @property
    def wait(self) -> float:
        """To the first token."""
        return self.first - self.job.at

    @property
    def stay(self) -> float:
        return self.last - self.job.at

    @property
    def speed(self) -> float:
        """Tokens a second of this stream, after the first."""
        return (self.job.num_output - 1) / (self.last - self.first)


def machine(profile: str, **changes: object) -> tuple[Engine, VirtualClock]:
    """The engine of a shipped profile; `changes` override fields of its EngineConfig."""
    found = load_profile(PROFILES / f"{profile}.toml")
    engine = msgspec.structs.replace(found.engine, **changes)
    clock = VirtualClock()
    made = msgspec.structs.replace(found, engine=engine)
    return emulated_engine(made, Babble(), Tokenizer.byte_level(), clock), clock


def play(engine: Engine, clock: VirtualClock, jobs: Iterable[Job]) -> list[Done]:
    """Send every job when its time has come, and run until all are done."""
    rng = random.Random(0)  # noqa: S311 - tokens, no secrets
    shared = rng.choices(range(256), k=8192)
    coming = sorted(jobs, key=lambda job: job.at)
    done = [Done(job) for job in coming]
    next_job = 0
    while next_job < len(coming) or engine.has_work:
        if not engine.has_work:
            clock.advance(coming[next_job].at - clock.now())
        while next_job < len(coming) and coming[next_job].at <= clock.now():
            job = coming[next_job]
            own = rng.choices(range(256), k=job.num_prompt - job.num_shared)
            params = SamplingParams(max_tokens=job.num_output, ignore_eos=True)
            ids = [*shared[: job.num_shared], *own]
            engine.add(Request(id=str(next_job), prompt_ids=ids, params=params))
            next_job += 1
        for output in engine.step():
            it = done[int(output.request_id)]
            it.first = it.first or clock.now()
            it.last = clock.now()
            it.num_cached = output.num_cached_tokens
    return done


def poisson(rate: float, count: int, num_prompt: int, num_output: int) -> list[Job]:
    """Independent clients: `rate` a second; answers of exponential length around `num_output`."""
    rng, at, jobs = random.Random(1), 0.0, []  # noqa: S311 - as above
    for _ in range(count):
        at += rng.expovariate(rate)
        jobs.append(Job(at, num_prompt, 2 + int(rng.expovariate(1 / num_output))))
    return jobs


def mean_in_system(done: Sequence[Done]) -> float:
    """How many requests were there at a time, on average: counted at every coming and going.

    >>> mean_in_system([Done(Job(0, 1, 2), 1, 2), Done(Job(1, 1, 2), 2, 3)])
    1.3333333333333333
    """
    events = sorted([(it.job.at, 1) for it in done] + [(it.last, -1) for it in done])
    area, present = 0.0, 0
    for (start, change), (end, _) in pairwise(events):
        present += change
        area += present * (end - start)
    return area / (events[-1][0] - events[0][0])


def quantile(values: Iterable[float], share: float) -> float:
    """
    >>> quantile([3, 1, 2], 0.5)
    2
    """
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
