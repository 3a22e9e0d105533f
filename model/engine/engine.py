"""The engine: requests in, one step at a time, pieces of answers out.

    engine = Engine(runner, tokenizer, EngineConfig(context_length=8192, stop_ids=...), WallClock())
    engine.add(Request(id="a", prompt_ids=[1, 2, 3], params=SamplingParams(temperature=0.0)))
    while engine.has_work:
        for output in engine.step():       # one Output per sequence that got tokens or ended
            print(output.text, end="")     # whole characters, never a part of a stop string

- `add(request)` queues params.n sequences or raises `InvalidRequest` (with `.param`), its subclass
  `TooLong`, or `QueueFull`. The id must not be in use.
- `step()` computes one batch and returns its outputs. What goes wrong with one sequence ends that
  one with finish_reason "error" and the cause in stop_reason; a failed batch ends all in it.
- `abort(id)` frees the blocks of all copies at once and returns their last outputs.
- `stats()` is what metrics are made of.

Synchronous and single-threaded: whoever shares an engine between threads holds a lock. Leaves out
the network (`runners`), the order of work (`scheduler`) and the choice of tokens (`sampler`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.engine.batching import build_batch
from model.engine.clock import Clock
from model.engine.config import EngineConfig
from model.engine.errors import InvalidRequest
from model.engine.intake import Intake
from model.engine.logprobs import TokenLogprobs, token_logprobs
from model.engine.runners import Runner
from model.engine.sampler import choose
from model.engine.scheduler import Scheduler, Share
from model.engine.sequence import FinishReason, Request, Sequence
from model.engine.stats import Recorder, Stats
from model.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What one sequence got out of one step."""

    request_id: str
    index: int
    token_ids: list[int] = []  # new ones
    text: str = ""  # what became certain; may lag behind the tokens
    logprobs: list[TokenLogprobs] | None = None  # one per new token, if asked for
    prompt_logprobs: list[TokenLogprobs | None] | None = None  # once, when the prompt is computed
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None  # the stop string or token id; the cause of an error
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int  # so far


class Engine:
    """See the module."""

    def __init__(
        self, runner: Runner, tokenizer: Tokenizer, config: EngineConfig, clock: Clock
    ) -> None:
        self.config = config
        self.runner = runner
        self._clock = clock
        self._intake = Intake(tokenizer, config)
        self._scheduler = Scheduler(config)
        self._recorder = Recorder()
        self._live: dict[str, list[Sequence]] = {}

    @property
    def has_work(self) -> bool:
        """Whether a step would compute something."""
        return bool(self._live)

    @property
    def adapters(self) -> frozenset[str]:
        """Those of all requests that are here."""
        return _adapters(copy for copies in self._live.values() for copy in copies)

    def add(self, request: Request) -> None:
        """Queue a request; the module says what it raises."""
        if request.id in self._live:
            raise InvalidRequest(f"a request {request.id!r} is running already", "id")
        first, *siblings = self._intake.open(request, self._clock.now())
        self._scheduler.check_queue(first.num_tokens)
        self._live[request.id] = [first, *siblings]
        first.siblings = siblings
        self._scheduler.add(first)

    def abort(self, request_id: str) -> list[Output]:
        """End all copies of a request; nothing if it is not here (any more)."""
        outputs = []
        for sequence in self._live.get(request_id, [])[:]:
            sequence.finish("abort")
            outputs.append(self._emit(sequence, text=sequence.text.flush()))
        return outputs

    def step(self) -> list[Output]:
        """Compute one batch."""
        shares = self._scheduler.schedule(self._clock.now())
        if not shares:
            return []
        batch, num_rows = build_batch(shares, self.config.block_size)
        self._recorder.observed.iteration_tokens.append(batch.num_tokens)
        try:
            result = self.runner.execute(batch, [share.sequence for share in shares])
        except Exception as error:  # ends its sequences, never the engine
            logger.exception("a batch of %d sequences failed", len(shares))
            return [self._fail(share.sequence, error) for share in shares]
        return self._collect(shares, num_rows, result)

    def stats(self) -> Stats:
        """What metrics are made of; to be called after every step."""
        scheduler, recorder = self._scheduler, self._recorder
        return Stats(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            kv_usage=scheduler.pool.usage,
            running_adapters=_adapters(scheduler.running),
            waiting_adapters=_adapters(scheduler.waiting),
            prompt_tokens=recorder.prompt_tokens,
            generation_tokens=recorder.generation_tokens,
            preemptions=scheduler.num_preemptions,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            drafts=recorder.drafts,
            draft_tokens=recorder.draft_tokens,
            accepted_tokens=recorder.accepted_tokens,
            observed=recorder.take(),
        )

    def forget_prefixes(self) -> None:
        """Reuse nothing that was computed so far, for example because weights changed."""
        self._scheduler.pool.forget_all()

    def _collect(
        self, shares: list[Share], num_rows: list[int], result: NDArray[np.generic]
    ) -> list[Output]:
        """Hand each sequence its rows of the result: logits [R, V], or tokens [R]."""
        best = result.argmax(axis=1) if result.ndim == 2 else result
        tokens, now = best.tolist(), self._clock.now()
        outputs, row = [], 0
        for share, rows in zip(shares, num_rows, strict=True):
            try:
                mine = slice(row, row + rows)
                output = self._take(share, result[mine], tokens[mine], now)
            except Exception as error:  # ends one sequence, not those beside it
                logger.exception("one sequence of request %s failed", share.sequence.request.id)
                output = self._fail(share.sequence, error)
            if output is not None:
                outputs.append(output)
            row += rows
        return outputs

    def _take(self, share: Share, rows: NDArray[Any], best: list[int], now: float) -> Output | None:
        """Note what was computed for one sequence; its output if that was all it lacked."""
        sequence, params = share.sequence, share.sequence.params
        if sequence.scores_prompt:
            _score(sequence, rows)
        if share.num_tokens < sequence.num_pending_tokens:
            self._scheduler.advance(sequence, sequence.num_computed_tokens + share.num_tokens)
            return None
        news: dict[str, Any] = {}
        if sequence.num_output_tokens == 0:
            self._recorder.prompt_tokens += sequence.num_prompt_tokens
            if params.prompt_logprobs is not None and sequence.index == 0:
                news["prompt_logprobs"] = sequence.prompt_logprobs
        if params.max_tokens == 0:
            self._scheduler.advance(sequence, sequence.num_tokens)
            sequence.finish("length")
        else:
            news |= self._sample(sequence, rows, best, now)
        return self._emit(sequence, **news)

    def _sample(
        self, sequence: Sequence, rows: NDArray[Any], best: list[int], now: float
    ) -> dict[str, Any]:
        """Draw the next token, and the one after for as long as the draft guessed the one before.

        Each is drawn as if there were no draft, from logits that saw the same tokens.
        """
        known, draft, num_top = sequence.num_tokens, sequence.draft, sequence.params.logprobs
        sequence.draft = []
        token_ids, texts, logprobs = [], [], []
        last = slice(-1 - len(draft), None)
        for row, highest, guess in zip(rows[last], best[last], [*draft, None], strict=True):
            token_id = highest if rows.ndim == 1 else choose(row, highest, sequence)
            token_ids.append(token_id)
            if num_top is not None:
                logprobs.append(token_logprobs(row, token_id, num_top))
            texts.append(sequence.accept(token_id))
            if token_id != guess or sequence.finish_reason is not None:
                break
        self._scheduler.advance(sequence, known + len(token_ids) - 1)
        self._recorder.tokens(sequence, len(token_ids), now)
        if draft:
            self._recorder.draft(len(draft), len(token_ids) - 1)
        if sequence.ngrams is not None:
            room = sequence.max_num_tokens - sequence.num_tokens - 1
            most = min(self.config.num_draft_tokens, room)
            sequence.draft = sequence.ngrams.draft(sequence.token_ids, most)
        return {
            "token_ids": token_ids,
            "text": "".join(texts),
            "logprobs": logprobs if num_top is not None else None,
        }

    def _fail(self, sequence: Sequence, error: Exception) -> Output:
        sequence.finish("error", f"{type(error).__name__}: {error}")
        return self._emit(sequence)

    def _emit(self, sequence: Sequence, **news: Any) -> Output:
        """The output of a sequence. With the first of it the copies may go; with the last, it."""
        if sequence.siblings:
            self._scheduler.add_ahead(sequence.siblings)
            sequence.siblings = []
        if sequence.finish_reason is not None:
            self._recorder.end(sequence, self._clock.now())
            self._scheduler.remove(sequence)
            copies = self._live[sequence.request.id]
            copies.remove(sequence)
            if not copies:
                del self._live[sequence.request.id]
        return Output(
            request_id=sequence.request.id,
            index=sequence.index,
            finish_reason=sequence.finish_reason,
            stop_reason=sequence.stop_reason,
            num_prompt_tokens=sequence.num_prompt_tokens,
            num_cached_tokens=sequence.num_cached_tokens,
            num_output_tokens=sequence.num_output_tokens,
            **news,
        )


def _score(sequence: Sequence, rows: NDArray[np.float32]) -> None:
    """Append the logprobs of the prompt tokens that follow the positions of these logits."""
    scored, num_top = sequence.prompt_logprobs, sequence.params.prompt_logprobs or 0
    if not scored:
        scored.append(None)  # nothing comes before the first token
    for position, raw in enumerate(rows, sequence.num_computed_tokens + 1):
        # after a preemption the first rows come again
        if len(scored) == position < sequence.num_prompt_tokens:
            scored.append(token_logprobs(raw, sequence.token_ids[position], num_top))


def _adapters(sequences: Iterable[Sequence]) -> frozenset[str]:
    return frozenset(s.request.adapter for s in sequences if s.request.adapter is not None)
