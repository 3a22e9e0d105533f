"""The order of work, read off the shares that each step gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.errors import QueueFull
from model.engine.runners import FakeRunner
from model.engine.sequence import Request, SamplingParams
from model.network.batch import Batch
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
MakeEngine = Callable[..., Engine]
MakeRequest = Callable[..., Request]


def schedule_of(
    engine: Engine, arrivals: dict[int, list[Request]]
) -> list[list[tuple[str, int, int]]]:
    """Per step who computed (id, copy, tokens); `arrivals` come before the step of that number."""
    steps = []
    seen: list[tuple[str, int, int]] = []
    plan = engine._scheduler.schedule

    def spy(now: float) -> Any:
        shares = plan(now)
        seen.extend((s.request.id, s.index, count) for s, count in shares)
        return shares

    engine._scheduler.schedule = spy  # type: ignore[method-assign]
    while engine.has_work or any(at >= len(steps) for at in arrivals):
        for request in arrivals.get(len(steps), []):
            engine.add(request)
        engine.step()
        steps.append(seen[:])
        seen.clear()
    return steps


def counts_of(step: list[tuple[str, int, int]]) -> dict[str, int]:
    return {request_id: count for request_id, _, count in step}


def test_a_fixed_arrival_list_gives_a_fixed_schedule(
    fake_engine: MakeEngine, request_of: MakeRequest
) -> None:
    engine = fake_engine(
        num_blocks=12, block_size=4, max_num_batched_tokens=16, prefill_chunk=8, max_num_seqs=2
    )
    arrivals = {
        0: [request_of("long", list(range(20)), max_tokens=6)],
        1: [
            request_of("pair", list(range(50, 58)), max_tokens=3, n=2),
            request_of("late", list(range(20)), max_tokens=2),
        ],
    }
    assert schedule_of(engine, arrivals) == [
        [("long", 0, 16)],  # alone: the whole budget
        [("long", 0, 4), ("pair", 0, 8)],
        *[[("long", 0, 1), ("pair", 0, 1)]] * 2,  # no third may run
        [("long", 0, 1), ("pair", 1, 4)],  # the copy goes first and finds the first block
        *[[("long", 0, 1), ("pair", 1, 1)]] * 2,
        [("late", 0, 4)],  # four of five blocks are known
        [("late", 0, 1)],
    ]


def test_who_came_last_gives_up_its_blocks_and_finds_most_of_them_again(
    fake_engine: MakeEngine, request_of: MakeRequest
) -> None:
    engine = fake_engine(num_blocks=6, block_size=4, context_length=24)
    arrivals = {
        0: [request_of("first", list(range(8)), max_tokens=7)],
        1: [request_of("second", list(range(50, 61)), max_tokens=4)],
    }
    assert schedule_of(engine, arrivals) == [
        [("first", 0, 8)],
        [("first", 0, 1), ("second", 0, 11)],
        [("first", 0, 1), ("second", 0, 1)],
        *[[("first", 0, 1)]] * 4,  # both needed a fourth block; the fifth token of these took one
        [("second", 0, 5)],  # 13 tokens, two of its three full blocks still known
        [("second", 0, 1)],
    ]
    assert engine.stats().preemptions == 1


def test_a_long_prompt_leaves_room_for_others(
    fake_engine: MakeEngine, request_of: MakeRequest
) -> None:
    engine = fake_engine(context_length=8192, num_blocks=600, prefill_chunk=64)
    arrivals = {
        0: [request_of("stream", [1], max_tokens=40)],
        1: [request_of("8000", [2] * 8000)],
        2: [request_of("short", [3] * 30, max_tokens=4)],
    }
    steps = schedule_of(engine, arrivals)
    for step in steps[1:40]:
        assert ("stream", 0, 1) in step
        assert sum(count for _, _, count in step) <= 64 + 1 + 30
    assert ("short", 0, 30) in steps[2]


def test_many_long_prompts_leave_a_token_for_each_stream_and_a_share_for_the_next(
    fake_engine: MakeEngine, request_of: MakeRequest
) -> None:
    engine = fake_engine(context_length=8192, num_blocks=3000, max_num_batched_tokens=512)
    arrivals = {
        0: [request_of(f"long {i}", [i] * 8000) for i in range(5)],
        1: [request_of("stream", [7], max_tokens=20)],
        2: [request_of("short", [8] * 70, max_tokens=2)],
    }
    steps = schedule_of(engine, arrivals)
    assert [counts_of(step) for step in steps[:4]] == [
        {"long 0": 128, "long 1": 128, "long 2": 128, "long 3": 128},
        {"long 0": 102, "long 1": 102, "long 2": 102, "long 3": 102, "long 4": 102, "stream": 1},
        {f"long {i}": 85 for i in range(5)} | {"stream": 1, "short": 70},
        {f"long {i}": 102 for i in range(5)} | {"stream": 1, "short": 1},
    ]
    assert all("stream" in counts_of(step) for step in steps[1:21])


def test_a_scored_prompt_keeps_few_rows_at_a_time(
    fake_engine: MakeEngine, request_of: MakeRequest
) -> None:
    engine = fake_engine(max_num_batched_tokens=256)
    arrivals = {0: [request_of("a", [1] * 150, max_tokens=0, prompt_logprobs=0)]}
    assert schedule_of(engine, arrivals) == [[("a", 0, 64)], [("a", 0, 64)], [("a", 0, 22)]]


def test_two_that_do_not_fit_together_both_finish(
    fake_engine: MakeEngine, request_of: MakeRequest, run: Callable[..., Any]
) -> None:
    engine = fake_engine(num_blocks=8, block_size=4, context_length=32)
    outputs = run(
        engine,
        request_of("a", list(range(10)), max_tokens=22),
        request_of("b", list(range(40, 50)), max_tokens=22),
    )
    assert [outputs[key][-1].num_output_tokens for key in (("a", 0), ("b", 0))] == [22, 22]
    assert engine.stats().preemptions > 0


requests = st.lists(
    st.tuples(
        st.integers(0, 12),  # step of arrival
        st.integers(1, 40),  # prompt tokens
        st.integers(1, 12),  # answer tokens
        st.integers(1, 3),  # copies
        st.sampled_from(["", "salt"]),
    ),
    min_size=1,
    max_size=8,
)


class Narrow(FakeRunner):
    """Has no position beyond the context."""

    def execute(self, batch: Batch, sequences: Any) -> NDArray[np.float32]:
        assert (batch.positions < 52).all()
        return super().execute(batch, sequences)


@settings(max_examples=100)
@example([(0, 1, 51, 1, "")], 20, 16, True, 30, (2, 5))  # guesses up to the end of the context
# who has made a guess is preempted
@example([(0, 25, 22, 1, ""), (0, 2, 20, 1, "x"), (0, 5, 25, 1, "y")], 13, 16, True, 30, (2, 5))
@given(
    requests, st.integers(13, 40), st.sampled_from([1, 3, 16]), st.booleans(), st.integers(1, 30),
    st.sampled_from([(258, 0), (258, 3), (2, 5)]),
)  # fmt: skip
def test_every_answer_is_right_whatever_the_schedule(
    wanted: list[tuple[int, int, int, int, str]],
    num_blocks: int,
    chunk: int,
    caching: bool,
    budget: int,
    guesses: tuple[int, int],
) -> None:
    """The fake network reads its cache, so a wrong block anywhere gives a wrong token.

    Where it knows two tokens only, it repeats itself, and guesses come true.
    """
    vocab_size, num_draft_tokens = guesses
    config = EngineConfig(
        context_length=52,
        num_blocks=num_blocks,
        block_size=4,
        prefill_chunk=chunk,
        max_num_batched_tokens=budget,
        max_num_seqs=5,
        prefix_caching=caching,
        num_draft_tokens=num_draft_tokens,
    )
    runner = Narrow(vocab_size, num_blocks, 4)
    engine = Engine(runner, BYTES, config, VirtualClock())
    texts: dict[tuple[str, int], list[int]] = {}
    step = 0
    while engine.has_work or any(at >= step for at, *_ in wanted):
        for i, (at, length, max_tokens, n, salt) in enumerate(wanted):
            if at == step:
                params = SamplingParams(temperature=0.0, max_tokens=max_tokens, n=n)
                prompt = list(range(length))
                engine.add(Request(id=str(i), prompt_ids=prompt, params=params, cache_salt=salt))
        for output in engine.step():
            texts.setdefault((output.request_id, output.index), []).extend(output.token_ids)
        step += 1
        assert step < 1000
    for i, (_, length, max_tokens, n, _) in enumerate(wanted):
        context = list(range(length))
        for _ in range(max_tokens):
            context.append(runner.expected(context))
        assert [texts[str(i), index] for index in range(n)] == [context[length:]] * n
    assert engine.stats().kv_usage == 0


def test_a_full_queue_refuses(fake_engine: MakeEngine, request_of: MakeRequest) -> None:
    engine = fake_engine(max_num_queued_reqs=2, max_num_queued_tokens=100)
    engine.add(request_of("first", [1] * 101))  # more than the bound, but nobody waits
    engine.step()
    engine.add(request_of("a", [1] * 60))
    with pytest.raises(QueueFull, match="60 tokens") as tokens:
        engine.add(request_of("b", [1] * 41))
    engine.add(request_of("c", [1] * 40))
    with pytest.raises(QueueFull, match="2 requests") as count:
        engine.add(request_of("d", [1]))
    assert (tokens.value.reason, count.value.reason) == ("tokens", "requests")
    engine.step()
    engine.add(request_of("d", [1]))
