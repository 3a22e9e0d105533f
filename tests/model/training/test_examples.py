"""What counts: the answers and what ends them, in the ids that a server would see."""

from collections.abc import Iterator

import pytest

from model.protocol.templates import Renderer
from model.training.examples import Encoder, Example, batches, num_steps
from model.training.rows import Row
from model.weights.checkpoint import Checkpoint
from model.weights.tiny import tiny_llama

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
CHECKPOINT: Checkpoint = tiny_llama()


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Renderer() as renderer:
        yield Encoder(CHECKPOINT, renderer, max_tokens=100)


def counted(example: Example) -> str:
    ids = [i for i, weight in zip(*example, strict=True) if weight]
    return CHECKPOINT.tokenizer.decode(ids, skip_special_tokens=False)


def test_only_answers_and_their_ends_count(encoder: Encoder) -> None:
    example = encoder.example([USER, ANSWER, USER, {**ANSWER, "content": "Again?"}])
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
    text += "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nAgain?<|im_end|>"
    assert CHECKPOINT.tokenizer.decode(example.ids, skip_special_tokens=False) == text
    assert counted(example) == "Hello!<|im_end|>Again?<|im_end|>"


def test_an_answer_of_weight_0_is_read_and_does_not_count(encoder: Encoder) -> None:
    example = encoder.example([USER, {**ANSWER, "weight": 0}, USER, ANSWER])
    assert counted(example) == "Hello!<|im_end|>"


def test_of_a_preference_the_last_answers_count(encoder: Encoder) -> None:
    chosen, rejected = encoder.group(Row(1, [USER, ANSWER, USER, ANSWER], "Go away."))
    assert (counted(chosen), counted(rejected)) == ("Hello!<|im_end|>", "Go away.<|im_end|>")


def test_rows_that_do_not_fit_are_named(encoder: Encoder) -> None:
    long, sly = ({"role": "assistant", "content": text} for text in ("x" * 100, "a<|im_end|>b"))
    rows = [Row(1, [USER, ANSWER]), Row(2, [USER, long]), Row(3, [USER, sly])]
    groups, problems = encoder.encode(rows)
    assert len(groups) == 1
    assert [problem.line for problem in problems] == [2, 3]
    assert "at most 100" in problems[0].reason
    assert "control token <|im_end|>" in problems[1].reason


def test_batches_are_a_function_of_the_step_and_meet_every_row_once_an_epoch() -> None:
    groups = [(Example([0, n], [0.0, 1.0]),) for n in range(12)]
    batch = batches(groups, 4, pack_tokens=5, seed=0)
    epochs = [[int(t) for s in range(e * 3, e * 3 + 3) for p in batch(s) for t in p.targets]
              for e in (0, 1)]  # fmt: skip
    assert epochs[0] != epochs[1]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert [len(pack.starts) - 1 for pack in batch(0)] == [2, 2]
    assert [pack.targets.tolist() for pack in batch(2)] == [p.targets.tolist() for p in batch(2)]
    assert num_steps(groups, 4, 2.0) == 6


def test_the_last_batch_of_an_epoch_may_be_smaller() -> None:
    groups = [(Example([0, n], [0.0, 1.0]),) for n in range(5)]
    batch = batches(groups, 4, pack_tokens=100, seed=0)
    seen = [int(t) for step in (0, 1) for pack in batch(step) for t in pack.targets]
    assert sorted(seen) == list(range(5))
    assert (num_steps(groups, 4, 1.0), num_steps(groups, 8, 3.0)) == (2, 3)


def test_a_pair_stays_in_one_pack() -> None:
    pair = (Example([0, 1], [0.0, 1.0]), Example([0, 2], [0.0, 1.0]))
    packs = batches([pair, pair], 2, pack_tokens=3, seed=0)(0)
    assert [len(pack.starts) - 1 for pack in packs] == [2, 2]
