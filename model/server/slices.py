"""Texts that wait to be embedded, taken in slices of bounded size, whoever sent them."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """What is needed of a sentence encoder."""

    def embed(self, sequences: Sequence[Sequence[int]]) -> Vectors:
        """Unit vectors [B, D]."""
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


class Slices:
    """A queue of jobs, first come, first served."""

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder
        self.jobs: deque[Job] = deque()

    def compute(self, num_tokens: int) -> list[Job]:
        """Embed the next texts, until `num_tokens` are reached; the jobs that this completes."""
        parts: list[tuple[Job, int]] = []  # a job and how many of its texts are in the slice
        sequences: list[list[int]] = []
        while self.jobs and num_tokens > 0:
            job = self.jobs[0]
            start = len(sequences)
            while not job.is_taken and num_tokens > 0:
                sequences.append(job.sequences[job.num_taken])
                num_tokens -= len(sequences[-1])
                job.num_taken += 1
            parts.append((job, len(sequences) - start))
            if job.is_taken:
                self.jobs.popleft()
        if not sequences:
            return []
        assert self._embedder is not None  # noqa: S101  (without one, no job comes)
        vectors = self._embedder.embed(sequences)
        for job, count in parts:
            job.vectors.append(vectors[:count])
            vectors = vectors[count:]
        return [job for job, _ in parts if job.num_taken == len(job.sequences)]
