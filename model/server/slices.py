"""Texts that wait to be embedded, whoever sent them, beside chats that have the right of way.

They are computed in slices of bounded size, layer by layer: nobody waits for more than a layer.
While answers are being generated embedding is given a small share of the time. A few words, most
likely somebody's question, go before documents, even those half computed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

SHORT_TOKENS = 128  # of all texts of a request that goes before others
SLICE_TOKENS = 1024
BUSY_SLICE_TOKENS = 128  # while answers are being generated: a text at a time, if it is a passage
TURN_S = 0.004  # begin no further layer in a turn that took so long
REST = 4  # times what a turn took, before the next one while answers are being generated


class Embedder(Protocol):
    """What is needed of a sentence encoder."""

    def steps(self, sequences: Sequence[Sequence[int]]) -> Iterator[Vectors | None]:
        """None after each part of the work, at last the unit vectors [B, D]."""
        ...


@dataclass(eq=False)
class Job:
    """The texts of one request as ids; `vectors` fills up slice by slice."""

    sequences: list[list[int]]
    done: asyncio.Future[Vectors]  # cancelled when nobody waits any more
    vectors: list[Vectors] = field(default_factory=list)
    num_taken: int = 0

    @property
    def is_taken(self) -> bool:
        """Whether nothing of it waits for a later slice."""
        return self.num_taken == len(self.sequences) or self.done.cancelled()


class _Lane:
    """First come, first served, one slice at a time."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self._parts: list[tuple[Job, int]] = []  # a job and how many of its texts are in the slice
        self._steps: Iterator[Vectors | None] = iter(())

    @property
    def has_work(self) -> bool:
        return bool(self.jobs or self._parts)

    def advance(self, embedder: Embedder, num_tokens: int) -> list[Job]:
        """One step of the slice, a new one if there is none; the jobs that this completes."""
        if not self._parts:
            sequences = self._take(num_tokens)
            self._steps = embedder.steps(sequences) if sequences else iter(())
        vectors = next(self._steps, None)
        if vectors is None:
            return []
        parts, self._parts = self._parts, []
        for job, count in parts:
            job.vectors.append(vectors[:count])
            vectors = vectors[count:]
        return [job for job, _ in parts if job.num_taken == len(job.sequences)]

    def _take(self, num_tokens: int) -> list[list[int]]:
        """The next texts, until `num_tokens` are reached."""
        sequences: list[list[int]] = []
        while self.jobs and num_tokens > 0:
            job = self.jobs[0]
            start = len(sequences)
            while not job.is_taken and num_tokens > 0:
                sequences.append(job.sequences[job.num_taken])
                num_tokens -= len(sequences[-1])
                job.num_taken += 1
            if len(sequences) > start:
                self._parts.append((job, len(sequences) - start))
            if job.is_taken:
                self.jobs.popleft()
        return sequences


class Slices:
    def __init__(
        self, embedder: Embedder | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._embedder = embedder
        self._clock = clock
        self._lanes = _Lane(), _Lane()  # short requests, all others
        self._rest_until = 0.0

    @property
    def has_work(self) -> bool:
        return any(lane.has_work for lane in self._lanes)

    def add(self, job: Job) -> None:
        is_long = sum(map(len, job.sequences)) > SHORT_TOKENS
        self._lanes[is_long].jobs.append(job)

    def advance(self, is_busy: bool) -> list[Job]:
        """A turn's work; the jobs that it completes. `is_busy`: answers are being generated."""
        start = self._clock()
        if not self.has_work or (is_busy and start < self._rest_until):
            return []
        assert self._embedder is not None  # noqa: S101  (without one, no job comes)
        num_tokens = BUSY_SLICE_TOKENS if is_busy else SLICE_TOKENS
        done: list[Job] = []
        while lane := next((lane for lane in self._lanes if lane.has_work), None):
            done += lane.advance(self._embedder, num_tokens)
            if (took := self._clock() - start) >= TURN_S:
                self._rest_until = start + (1 + REST) * took
                break
        return done
