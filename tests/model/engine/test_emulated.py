import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.cost import Profile, StepCost
from model.engine.emulated import (
    Babble,
    Echo,
    EmulatedRunner,
    Replay,
    Script,
    emulated_engine,
)
from model.engine.engine import Engine, Output
from model.engine.errors import InvalidRequest
from model.engine.grammar import Grammars
from model.engine.sequence import Request, SamplingParams
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
Run = Callable[..., dict[tuple[str, int], list[Output]]]
COST = StepCost(tokens=(1, 101), seconds=(1, 2))


def emulated(script: Script, **changes: Any) -> tuple[Engine, EmulatedRunner, VirtualClock]:
    clock = VirtualClock()
    config = EngineConfig(**{"context_length": 512} | changes)
    profile = Profile(name="test", source="here", engine=config, step=COST)
    engine = emulated_engine(profile, script, BYTES, clock)
    assert isinstance(engine.runner, EmulatedRunner)
    return engine, engine.runner, clock


def texts(outputs: dict[tuple[str, int], list[Output]]) -> list[str]:
    return ["".join(output.text for output in copy) for copy in outputs.values()]


def request_of(prompt: str, **params: Any) -> Request:
    return Request(id=prompt, prompt_ids=BYTES.encode(prompt), params=SamplingParams(**params))


CHAT = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi\nyou<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize(("prompt", "text"), [("plain\ntext", "plain\ntext"), (CHAT, "Hi\nyou")])
def test_echo(run: Run, prompt: str, text: str) -> None:
    outputs = run(emulated(Echo(BYTES))[0], request_of(prompt))
    assert texts(outputs) == [text]
    (copy,) = outputs.values()
    assert copy[-1].finish_reason == "stop"


def test_an_answer_that_may_not_end_starts_over(run: Run) -> None:
    request = request_of("ab", ignore_eos=True, max_tokens=7)
    assert texts(run(emulated(Echo(BYTES))[0], request)) == ["ababa"]  # and two marks of an end


def test_babble_depends_on_seed_prompt_and_copy(run: Run) -> None:
    def said(seed: int, prompt: str) -> list[str]:
        return texts(run(emulated(Babble(seed, 100))[0], request_of(prompt, n=2)))

    assert said(1, "x") == said(1, "x")
    assert len({*said(1, "x"), *said(2, "x"), *said(1, "y")}) == 6


def test_replay(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("one", "zwei\n", "trois")))
    engine = emulated(Replay(path))[0]
    assert texts(run(engine, *map(request_of, "abcd"))) == ["one", "zwei\n", "trois", "one"]
    path.write_text("\n")
    with pytest.raises(ValueError, match="no line"):
        Replay(path)


def test_time_is_what_the_steps_cost(run: Run) -> None:
    engine, runner, clock = emulated(Echo(BYTES), prefill_chunk=51, max_num_batched_tokens=51)
    run(engine, request_of("x" * 101, max_tokens=3))
    # 51 and 50 tokens of the prompt, then one by one
    assert clock.now() == pytest.approx(1.5 + 1.49 + 1 + 1)
    assert runner.drift == 0
    finished = engine.stats().observed.finished[0]
    assert finished.prefill == pytest.approx(2.99)
    assert finished.per_output_token == pytest.approx(1)


def test_a_step_counts_from_the_end_of_the_one_before(run: Run) -> None:
    engine, runner, clock = emulated(Echo(BYTES))
    engine.add(request_of("x", max_tokens=5, ignore_eos=True))
    engine.step()
    clock.advance(0.4)  # work between the steps
    engine.step()
    assert clock.now() == 2
    clock.advance(1.5)  # more than a whole step
    engine.step()
    assert clock.now() == 3.5
    assert runner.drift == pytest.approx(0.5 / 3)
    engine.abort("x")
    clock.advance(10)  # nothing to do
    run(engine, request_of("y", max_tokens=1))
    assert clock.now() == 14.5


def test_guesses_come_true_where_a_text_repeats(run: Run) -> None:
    engine = emulated(Echo(BYTES), num_draft_tokens=4)[0]
    assert texts(run(engine, request_of("abcd" * 10))) == ["abcd" * 10]
    assert engine.stats().accepted_tokens > 20


@pytest.mark.parametrize("end", [{"stop": ("d",)}, {"stop_token_ids": frozenset({ord("d")})}])
def test_nothing_follows_a_stop_among_guesses(run: Run, end: dict[str, Any]) -> None:
    engine = emulated(Echo(BYTES), num_draft_tokens=7)[0]
    outputs = run(engine, request_of("abcd" * 10, min_tokens=17, **end))
    assert texts(outputs) == ["abcd" * 4 + "abc"]
    assert engine.stats().generation_tokens == 20


@pytest.mark.parametrize(
    "params",
    [
        {"logprobs": 0}, {"prompt_logprobs": 0}, {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": (1,)}, {"bad_words": ("x",)},
    ],
)  # fmt: skip
def test_what_needs_logits_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="needs logits") as refusal:
        emulated(Echo(BYTES))[0].add(request_of("x", **params))
    assert refusal.value.param == next(iter(params))


def test_a_grammar_needs_logits() -> None:
    grammar = Grammars(BYTES, frozenset({257})).compile("regex", "a")
    request = Request(id="a", prompt_ids=[1], params=SamplingParams(), grammar=grammar)
    with pytest.raises(InvalidRequest, match="grammar needs logits"):
        emulated(Echo(BYTES))[0].add(request)
