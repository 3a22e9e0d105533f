"""The class that the chapter on fine-tuning teaches: `tiny`, adapters over it, and exams.

A pupil is the shipped network of a million weights with a fresh adapter; teaching takes seconds.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from model.network.llama import Llama
from model.network.tensor import Tensor
from model.training import tiny_text
from model.training.llama import LowRankSettings, Pack, TrainableLlama
from model.training.loop import Run
from model.training.losses import Loss, negative_log_likelihood
from model.training.parameters import Pace
from model.training.tiny import Recipe, answer, encode
from model.training.tiny_text import Exchange, messages_of
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint

NOWHERE = Path("/nonexistent")  # a lesson keeps no checkpoint


@cache
def tiny() -> Checkpoint:
    return load_llama("tiny")


def pupil(rank: int = 8, seed: int = 0) -> TrainableLlama:
    """`tiny` with an adapter that changes nothing yet."""
    return TrainableLlama.with_adapter(tiny().network, LowRankSettings(rank, 2.0 * rank), seed)


def pack(exchanges: Sequence[Exchange], question_weight: float = 0.0) -> Pack:
    """One conversation an exchange; only answers count."""
    return Pack.of([encode(tiny().tokenizer, messages_of([it]), question_weight)
                    for it in exchanges])  # fmt: skip


def teach(
    network: TrainableLlama,
    packs: Sequence[Pack],
    num_steps: int = 60,
    rate: float = 5e-3,
    loss: Loss = negative_log_likelihood,
) -> list[float]:
    """The loss of each step; the packs take turns."""
    run = Run(network, Pace(num_steps, rate, num_warmup=5), NOWHERE, {})
    return [run.take(loss, [packs[step % len(packs)]]).loss for step in range(num_steps)]


def answers(network: TrainableLlama, questions: Sequence[str]) -> list[str]:
    """What the pupil says, greedily, its adapter merged into the weights."""
    weights = {name: Tensor.from_array(name, it) for name, it in network.merged().items()}
    served = Llama.from_tensors(network.config, weights)
    return answer(replace(tiny(), network=served), questions)


def exam(network: TrainableLlama, exchanges: Sequence[Exchange]) -> float:
    """The share of questions whose answer is exactly right."""
    said = answers(network, [question for question, _ in exchanges])
    return float(np.mean([it == right for it, (_, right) in zip(said, exchanges, strict=True)]))


def questions_of(skill: str, number: int, held_out: bool = True) -> list[Exchange]:
    """Questions of a skill that `tiny` has: those that it never saw, or those that it may have."""
    return tiny_text.questions_of(Recipe.read().words, skill, number, held_out)
