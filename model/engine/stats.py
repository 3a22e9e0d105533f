"""What an engine can tell about its work: the raw material of metrics.

Accounting follows vLLM v1: each of a request's n copies counts as one request; queue time ends with
the first admission, whatever preemption comes later; prompt tokens count once, when the prompt is
computed, cached ones included; an interval between tokens is one per step that brought any.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from model.engine.sequence import FinishReason, Sequence

UNREAD = 10_000


class Finished(NamedTuple):
    """One sequence that ended. Times in seconds; None where it never got that far."""

    reason: FinishReason
    num_prompt_tokens: int
    num_output_tokens: int
    max_tokens: int | None
    n: int
    e2e: float  # from arrival to the end
    queue: float | None  # from arrival to the first admission
    prefill: float | None  # from there to the first token
    decode: float | None  # from the first to the last token
    inference: float | None  # from admission to the last token
    per_output_token: float | None  # decode over the tokens after the first; 0 if there are none


@dataclass(slots=True)
class Observed:
    """Single events since the last look, for histograms; the latest UNREAD of each kind."""

    iteration_tokens: deque[int] = field(default_factory=lambda: deque(maxlen=UNREAD))  # per step
    time_to_first_token: deque[float] = field(default_factory=lambda: deque(maxlen=UNREAD))
    inter_token_latency: deque[float] = field(default_factory=lambda: deque(maxlen=UNREAD))
    finished: deque[Finished] = field(default_factory=lambda: deque(maxlen=UNREAD))


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges now and counts since the start."""

    num_running: int
    num_waiting: int
    kv_usage: float  # share of blocks in use, 0 to 1
    running_adapters: frozenset[str]
    waiting_adapters: frozenset[str]

    prompt_tokens: int
    generation_tokens: int
    preemptions: int
    prefix_queries: int  # tokens looked up in the prefix cache
    prefix_hits: int  # tokens found there
    drafts: int  # steps of a sequence that checked a guess
    draft_tokens: int
    accepted_tokens: int  # of those

    observed: Observed  # since the call before


class Recorder:
    """Counts and times; the engine calls it as things happen."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.drafts = self.draft_tokens = self.accepted_tokens = 0
        self.observed = Observed()

    def take(self) -> Observed:
        """The events since the last call."""
        observed, self.observed = self.observed, Observed()
        return observed

    def tokens(self, sequence: Sequence, count: int, now: float) -> None:
        """`sequence` got `count` tokens out of the step that ended now."""
        self.generation_tokens += count
        if sequence.first_token is None:
            sequence.first_token = now
            self.observed.time_to_first_token.append(now - sequence.arrived)
        else:
            self.observed.inter_token_latency.append(now - sequence.last_token)
        sequence.last_token = now

    def draft(self, num_tokens: int, num_accepted: int) -> None:
        """A guess of `num_tokens` was checked."""
        self.drafts += 1
        self.draft_tokens += num_tokens
        self.accepted_tokens += num_accepted

    def end(self, sequence: Sequence, now: float) -> None:
        """`sequence` got its finish_reason."""
        begun, first, last = sequence.admitted, sequence.first_token, sequence.last_token
        decode = None if first is None else last - first
        num_later = max(sequence.num_output_tokens - 1, 1)
        self.observed.finished.append(
            Finished(
                reason=sequence.finish_reason or "error",
                num_prompt_tokens=sequence.num_prompt_tokens,
                num_output_tokens=sequence.num_output_tokens,
                max_tokens=sequence.params.max_tokens,
                n=sequence.params.n,
                e2e=now - sequence.arrived,
                queue=None if begun is None else begun - sequence.arrived,
                prefill=None if begun is None or first is None else first - begun,
                decode=decode,
                inference=None if begun is None or first is None else last - begun,
                per_output_token=None if decode is None else decode / num_later,
            )
        )
