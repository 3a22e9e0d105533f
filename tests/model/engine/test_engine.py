from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine, Output
from model.engine.errors import InvalidRequest, TooLong
from model.engine.runners import FakeRunner
from model.engine.sequence import Request, SamplingParams, Sequence
from model.network.batch import Batch
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
MakeEngine = Callable[..., Engine]
MakeRequest = Callable[..., Request]
Run = Callable[..., dict[tuple[str, int], list[Output]]]


class Script:
    """A runner that says the same text to everyone, token by token."""

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids

    def execute(self, batch: Batch, sequences: list[Sequence]) -> NDArray[np.float32]:
        logits = np.zeros((len(batch.logit_rows), BYTES.vocab_size), np.float32)
        for row, sequence in zip(logits, sequences, strict=True):
            row[self.token_ids[sequence.num_output_tokens]] = 5
        return logits


def say(text: str | list[int], **params: Any) -> tuple[str, Output]:
    """The text and the last output of one request to which the network wants to say `text`."""
    token_ids = BYTES.encode(text) if isinstance(text, str) else text
    config = EngineConfig(context_length=64, num_blocks=8, stop_ids=frozenset({257}))
    engine = Engine(Script(token_ids), BYTES, config, VirtualClock())
    params = {"temperature": 0.0} | params
    engine.add(Request(id="r", prompt_ids=[1, 2], params=SamplingParams(**params)))
    outputs: list[Output] = []
    while engine.has_work:
        outputs += engine.step()
    assert outputs[-1].num_output_tokens == sum(len(output.token_ids) for output in outputs)
    return "".join(output.text for output in outputs), outputs[-1]


@pytest.mark.parametrize(
    ("params", "text", "reason", "stop_reason", "num_tokens"),
    [
        ({}, "hi there", "stop", None, 9),
        ({"max_tokens": 3}, "hi ", "length", None, 3),
        ({"stop": ("th",)}, "hi ", "stop", "th", 5),
        ({"stop": ("th",), "include_stop": True}, "hi th", "stop", "th", 5),
        ({"stop": ("there!",), "max_tokens": 5}, "hi th", "length", None, 5),
        ({"stop": ("th",), "max_tokens": 5}, "hi ", "stop", "th", 5),
        ({"stop": ("i",), "min_tokens": 4}, "hi there", "stop", None, 9),
        ({"stop_token_ids": frozenset({ord("t")})}, "hi ", "stop", ord("t"), 4),
        ({"stop_token_ids": frozenset({ord("t")}), "include_stop": True},
         "hi t", "stop", ord("t"), 4),
        ({"stop": ("there!",)}, "hi there", "stop", None, 9),
        ({"ignore_eos": True, "max_tokens": 12}, "hi there..", "length", None, 12),
    ],
)  # fmt: skip
def test_where_an_answer_ends(
    params: dict[str, Any], text: str, reason: str, stop_reason: Any, num_tokens: int
) -> None:
    said, last = say("hi there<|im_end|>..<|im_end|>", **params)
    assert (said, last.finish_reason, last.stop_reason) == (text, reason, stop_reason)
    assert last.num_output_tokens == num_tokens


def test_an_answer_without_limit_ends_with_the_context() -> None:
    said, last = say("x" * 100)
    assert (len(said), last.finish_reason) == (62, "length")


def test_no_end_comes_before_min_tokens() -> None:
    said, last = say([257] * 5, min_tokens=3, logit_bias={97: 4})
    assert (said, last.num_output_tokens) == ("aaa", 4)


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    assert say("aé", max_tokens=2)[0] == "a\ufffd"


def test_copies_share_the_blocks_of_the_prompt(
    fake_engine: MakeEngine, request_of: MakeRequest, run: Run
) -> None:
    engine = fake_engine(block_size=4)
    outputs = run(engine, request_of("a", list(range(10)), n=3, max_tokens=5))
    tokens = [[t for o in outputs["a", index] for t in o.token_ids] for index in range(3)]
    assert tokens[0] == tokens[1] == tokens[2]
    assert [outputs["a", index][0].num_cached_tokens for index in range(3)] == [0, 8, 8]
    # full blocks once, the rest of the prompt for each
    assert sum(engine.stats().observed.iteration_tokens) == 10 + 2 + 2 + 3 * 4


def test_copies_draw_different_answers_and_the_seed_repeats_them(
    fake_engine: MakeEngine, request_of: MakeRequest, run: Run
) -> None:
    def texts(seed: int | None) -> list[list[int]]:
        params = {"n": 4, "temperature": 100.0, "seed": seed}
        outputs = run(fake_engine(), request_of("a", [1, 2, 3], **params))
        return [[t for o in outputs["a", index] for t in o.token_ids] for index in range(4)]

    assert texts(1) == texts(1) != texts(2)
    assert len({tuple(text) for text in texts(1)}) == 4
    assert texts(-1) == texts(-1)
    assert texts(None) == texts(None)  # the engine of the fixture is seeded itself


def test_a_prefix_is_found_again_only_under_the_same_salt_and_adapter(
    fake_engine: MakeEngine, request_of: MakeRequest, run: Run
) -> None:
    engine, prompt = fake_engine(), list(range(48))
    cached = [
        run(engine, request_of(str(i), prompt, **names))[str(i), 0][0].num_cached_tokens
        for i, names in enumerate([{}, {}, {"cache_salt": "x"}, {"adapter": "x"}, {"adapter": "x"}])
    ]
    assert cached == [0, 32, 0, 0, 32]  # of 48: one token at least is computed
    stats = engine.stats()
    assert (stats.prefix_queries, stats.prefix_hits) == (5 * 48, 64)
    engine.forget_prefixes()
    assert run(engine, request_of("z", prompt))["z", 0][0].num_cached_tokens == 0


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_abort_frees_all_copies_at_once(
    fake_engine: MakeEngine, request_of: MakeRequest, steps: int
) -> None:
    engine = fake_engine(max_num_batched_tokens=40)
    engine.add(request_of("a", [1] * 60, n=3))
    for _ in range(steps):
        engine.step()
    outputs = engine.abort("a")
    assert [(o.index, o.finish_reason) for o in outputs] == [(i, "abort") for i in range(3)]
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_usage) == (0, 0, 0)
    assert not engine.has_work
    assert engine.step() == []
    assert engine.abort("a") == []


def test_200_cancelled_requests_leave_nothing_behind(
    fake_engine: MakeEngine, request_of: MakeRequest, run: Run
) -> None:
    engine = fake_engine(context_length=4096, num_blocks=300)
    for i in range(200):
        engine.add(request_of(str(i), [i] * (i + 1), max_tokens=2000))
        engine.step()
        if i >= 20:
            engine.abort(str(i - 20))
    for i in range(180, 200):
        engine.abort(str(i))
    assert engine.stats().kv_usage == 0
    assert run(engine, request_of("next", [1, 2]))["next", 0][-1].finish_reason == "length"


class Broken(FakeRunner):
    """Not a number for whoever's last token is 66; an exception for 77."""

    def execute(self, batch: Batch, sequences: Any) -> NDArray[np.float32]:
        logits = super().execute(batch, sequences)
        if 77 in batch.token_ids:
            raise MemoryError("too big")
        logits[batch.token_ids[batch.logit_rows] == 66, 3] = np.nan
        return logits


def test_one_failure_ends_one_sequence(
    request_of: MakeRequest, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    config = EngineConfig(context_length=64, num_blocks=16)
    engine = Engine(Broken(258, 16, 16), BYTES, config, VirtualClock())
    outputs = run(engine, request_of("bad", [1, 66], n=2), request_of("good", [1, 2]))
    last = outputs["bad", 0][-1]
    assert (last.finish_reason, last.stop_reason) == (
        "error",
        "NothingToSample: the logits are not finite",
    )
    assert outputs["bad", 1][-1].finish_reason == "error"
    assert outputs["good", 0][-1].finish_reason == "length"
    ended = run(engine, request_of("worse", [77]), request_of("with it", [1, 2]))
    assert {o[-1].stop_reason for o in ended.values()} == {"MemoryError: too big"}
    assert run(engine, request_of("after", [1]))["after", 0][-1].finish_reason == "length"
    assert engine.stats().kv_usage == 0
    assert "a batch of 2 sequences failed" in caplog.text


@pytest.mark.parametrize(
    ("prompt", "params", "param", "numbers"),
    [
        ([], {}, "prompt_ids", "no tokens"),
        ([1] * 33, {}, "prompt_ids", "33 tokens.* 32$"),
        ([1] * 32, {"max_tokens": None}, "prompt_ids", "32 tokens.* 32$"),
        ([1] * 30, {"max_tokens": 3}, "max_tokens", "30 tokens and max_tokens 3 make 33.* 32$"),
        ([1], {"max_tokens": 10**9}, "max_tokens", "1000000001.* 32$"),
        ([258], {}, "prompt_ids", "258.* 258$"),
        ([-1], {}, "prompt_ids", "-1"),
        ([1], {"logit_bias": {999: 1.0}}, "logit_bias", "999"),
        ([1], {"allowed_token_ids": (999,)}, "allowed_token_ids", "999"),
        ([1], {"stop_token_ids": frozenset({999})}, "stop_token_ids", "999"),
    ],
)
def test_the_impossible_is_refused_with_its_numbers(
    fake_engine: MakeEngine,
    request_of: MakeRequest,
    prompt: list[int],
    params: dict[str, Any],
    param: str,
    numbers: str,
) -> None:
    engine = fake_engine(num_blocks=2, block_size=16)  # the pool is smaller than the context
    with pytest.raises(InvalidRequest, match=numbers) as refusal:
        engine.add(request_of("a", prompt, **params))
    assert refusal.value.param == param
    assert isinstance(refusal.value, TooLong) == (" 32$" in numbers)
    assert not engine.has_work


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": -1}, {"min_tokens": 5, "max_tokens": 4}, {"n": 0}, {"temperature": -0.1},
        {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -2},
        {"min_p": 1.5}, {"repetition_penalty": 0.0}, {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1}, {"logprobs": 21}, {"prompt_logprobs": -1},
        {"logit_bias": {1: 101.0}}, {"allowed_token_ids": ()}, {"stop": ("",)},
        {"stop": ("x" * 257,)}, {"stop": ("x",) * 17}, {"bad_words": ("x",) * 257},
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
        {"stop_token_ids": frozenset(range(257))},
    ],
)  # fmt: skip
def test_parameters_have_ranges(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        SamplingParams(**params)
    assert refusal.value.param == next(iter(params))


def test_a_config_has_positive_counts() -> None:
    with pytest.raises(ValueError, match="num_blocks must be at least 1, not 0"):
        EngineConfig(context_length=64, num_blocks=0)


def test_an_id_is_used_once_at_a_time(fake_engine: MakeEngine, request_of: MakeRequest) -> None:
    engine = fake_engine()
    engine.add(request_of("a", [1]))
    with pytest.raises(InvalidRequest, match="running already"):
        engine.add(request_of("a", [1]))
