from collections.abc import Callable
from typing import Any

import pytest

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.runners import FakeRunner
from model.engine.sequence import Request
from model.network.batch import Batch
from model.tokenizer import Tokenizer

MakeRequest = Callable[..., Request]


class Slow(FakeRunner):
    """Takes one second a step."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(258, 64, 16)
        self.clock = clock

    def execute(self, batch: Batch, sequences: Any) -> Any:
        self.clock.advance(1.0)
        return super().execute(batch, sequences)


@pytest.fixture
def slow_engine() -> Callable[..., Engine]:
    def make(**changes: Any) -> Engine:
        clock = VirtualClock()
        config = EngineConfig(**{"context_length": 512, "num_blocks": 64} | changes)
        return Engine(Slow(clock), Tokenizer.byte_level(), config, clock)

    return make


def test_n_requests_of_k_tokens(
    slow_engine: Callable[..., Engine], request_of: MakeRequest, run: Callable[..., Any]
) -> None:
    engine = slow_engine()
    run(engine, *(request_of(str(i), [i] * 20, max_tokens=7) for i in range(5)))
    stats = engine.stats()
    seen = stats.observed
    assert len(seen.inter_token_latency) == 5 * 6
    assert len(seen.time_to_first_token) == len(seen.finished) == 5
    assert (stats.prompt_tokens, stats.generation_tokens) == (100, 35)
    assert (stats.num_running, stats.num_waiting, stats.kv_usage) == (0, 0, 0)
    assert list(seen.iteration_tokens) == [100] + [5] * 6
    assert not engine.stats().observed.finished


def test_times_of_one_request(
    slow_engine: Callable[..., Engine], request_of: MakeRequest, run: Callable[..., Any]
) -> None:
    engine = slow_engine(max_num_seqs=1, max_num_batched_tokens=16)
    run(engine, request_of("a", [1] * 8, max_tokens=3), request_of("b", [2] * 32, max_tokens=4))
    first, second = engine.stats().observed.finished
    assert (first.queue, first.prefill, first.decode, first.e2e) == (0, 1, 2, 3)
    assert (second.queue, second.prefill, second.decode, second.e2e) == (3, 2, 3, 8)
    assert (second.inference, second.per_output_token) == (5, 1)
    assert (second.num_prompt_tokens, second.num_output_tokens, second.reason) == (32, 4, "length")


def test_an_abort_in_the_queue_has_no_times_but_its_own(
    slow_engine: Callable[..., Engine], request_of: MakeRequest
) -> None:
    engine = slow_engine(max_num_seqs=1)
    engine.add(request_of("a", [1] * 8))
    engine.add(request_of("b", [1] * 8, adapter="x"))
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting) == (1, 1)
    assert (stats.running_adapters, stats.waiting_adapters) == (frozenset(), frozenset({"x"}))
    assert stats.kv_usage == 1 / 64
    engine.abort("b")
    engine.abort("a")
    waiting, running = engine.stats().observed.finished
    assert (waiting.queue, waiting.prefill, waiting.decode, waiting.e2e) == (None, None, None, 1)
    assert (running.queue, running.prefill, running.decode, running.e2e) == (0, 1, 0, 1)
    assert running.per_output_token == 0


def test_preemption_neither_hides_nor_repeats_anything(
    slow_engine: Callable[..., Engine], request_of: MakeRequest, run: Callable[..., Any]
) -> None:
    engine = slow_engine(num_blocks=4, context_length=64)
    run(engine, *(request_of(str(i), [i] * 25, max_tokens=20) for i in range(2)))
    stats = engine.stats()
    assert stats.preemptions > 0
    assert (stats.prompt_tokens, stats.generation_tokens) == (50, 40)
    assert stats.prefix_queries == 50
    assert len(stats.observed.inter_token_latency) == 2 * 19
