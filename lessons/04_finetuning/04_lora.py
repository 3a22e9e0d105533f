"""How can a few numbers change a whole network?

LoRA leaves every weight W as it is and adds B · A beside it, two thin matrices of rank r. B starts
at zero, so the first step starts at the very network that one had. What comes out is a small file
that can be laid beside the network, taken away again, or added into its weights for good: the
answers are the same. How thin may it be? For a change of form even rank 1, a hundredth of the
numbers, goes a good part of the way.
"""

from functools import cache

import numpy as np

from lessons.classroom import exam, pack, pupil, questions_of, teach, tiny
from lessons.story import Claim, Exercise, Result
from model.training.llama import TrainableLlama, dense_weights
from model.training.tiny_text import Exchange


def loudly(exchange: Exchange) -> Exchange:
    """
    >>> loudly(("Hi", "Hello."))
    ('Hi', 'Hello!!!')
    """
    return exchange[0], exchange[1].removesuffix(".") + "!!!"


@cache
def loud(rank: int) -> TrainableLlama:
    network = pupil(rank)
    teach(network, [pack([loudly(it) for it in questions_of("fact", 24, held_out=False)])])
    return network


@cache
def score(rank: int) -> float:
    """Of facts in wordings that were in no example."""
    return exam(loud(rank), [loudly(it) for it in questions_of("fact", 24)])


def difference_at_the_start() -> float:
    batch = pack(questions_of("compare", 4))
    network = pupil()
    return float(np.abs(network.score(batch) - network.without_adapter().score(batch)).max())


def difference_when_merged() -> float:
    batch, network = pack(questions_of("compare", 4)), loud(4)
    nothing = {"nothing": np.zeros(0, np.float32)}
    merged = TrainableLlama(network.config, network.merged(), nothing)
    return float(np.abs(network.score(batch) - merged.score(batch)).max())


def share_trained(rank: int) -> float:
    total = sum(it.size for it in dense_weights(tiny().network).values())
    return pupil(rank).trained.vector.size / total


def run() -> Result:
    return {
        "difference before the first step": Claim(difference_at_the_start(), 0, 0),
        "difference, beside and merged": Claim(difference_when_merged(), 0, 1e-3),
        "numbers trained at rank 1, of the whole": Claim(share_trained(1), 0.005, 0.02),
        "right at rank 1": Claim(score(1), 0.15, 0.9),
        "right at rank 8": Claim(score(8), 0.4, 1),
    }


EXERCISES = (
    Exercise(
        "A weight has 128 inputs and 352 outputs. How many numbers has its change at rank 8?",
        8 * (128 + 352),
        lambda: sum(pupil(8).trained[f"layers.0.gate_proj.{factor}"].size for factor in ("A", "B")),
    ),
    Exercise(
        "Does twice the rank train twice the numbers?",
        True,
        lambda: pupil(8).trained.vector.size == 2 * pupil(4).trained.vector.size,
    ),
)
