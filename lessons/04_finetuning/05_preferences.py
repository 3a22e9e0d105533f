"""What if nobody can write the right answer, but everybody can tell the better of two?

Preference optimisation (DPO) takes pairs. Its loss asks how much more the network likes the chosen
answer than the rejected one, compared with the network that it started from; at the start that is
nothing, so the loss is ln 2 exactly. Here `tiny` is to prefer short answers: "7" to "3 + 4 = 7".
Watch both likelihoods: the rejected answer becomes impossible, and the chosen one hardly any
likelier. What the loss asks for is the difference, nothing else.
"""

import math
from functools import cache

import numpy as np

from lessons.classroom import pack, pupil, questions_of, teach
from lessons.story import Claim, Exercise, Result
from model.training.llama import Pack, TrainableLlama
from model.training.losses import PreferenceLoss
from model.training.tiny_text import Exchange

BETA = 0.1


def pairs(held_out: bool) -> list[tuple[Exchange, Exchange]]:
    """(chosen, rejected): short against long answers to the same questions."""
    asked = questions_of("add", 12, held_out=held_out)
    return [((it[0], it[1].rpartition(" ")[2]), it) for it in asked]


def packed(held_out: bool) -> Pack:
    """Chosen, rejected, chosen, rejected, …"""
    return pack([exchange for pair in pairs(held_out) for exchange in pair])


@cache
def taught() -> tuple[TrainableLlama, list[float]]:
    network = pupil()
    loss = PreferenceLoss(network.without_adapter(), BETA)
    return network, teach(network, [packed(held_out=False)], 30, 5e-3, loss)


def log_likelihoods(network: TrainableLlama) -> tuple[float, float]:
    """Mean log p of whole answers, chosen and rejected, to questions that were not trained on."""
    batch = packed(held_out=True)
    sums = np.zeros(len(batch.starts) - 1)
    owner = np.searchsorted(batch.starts, batch.rows, side="right") - 1
    np.add.at(sums, owner, network.score(batch))
    return float(sums[0::2].mean()), float(sums[1::2].mean())


def share_preferred(network: TrainableLlama) -> float:
    batch = packed(held_out=True)
    margins = PreferenceLoss._margins(batch, network.score(batch))
    return float((margins > 0).mean())


def run() -> Result:
    network, losses = taught()
    before, after = log_likelihoods(network.without_adapter()), log_likelihoods(network)
    return {
        "loss at the start, less ln 2": Claim(abs(losses[0] - math.log(2)), 0, 1e-5),
        "loss at the end": Claim(losses[-1], 0, 0.3),
        "preferred before": Claim(share_preferred(network.without_adapter()), 0, 0.3),
        "preferred after, other questions": Claim(share_preferred(network), 0.7, 1),
        "growth of the margin, in nats": Claim(
            after[0] - after[1] - before[0] + before[1], 5, 1000
        ),
        "change of the chosen one's log p": Claim(after[0] - before[0], -10, 10),
        "change of the rejected one's log p": Claim(after[1] - before[1], -1000, -1),
    }


EXERCISES = (
    Exercise(
        "What is the loss of a pair before the first step (three digits)?",
        0.693,
        lambda: round(taught()[1][0], 3),
    ),
    Exercise(
        "Does the loss of a pair know how likely the chosen answer is by itself?",
        False,
        lambda: abs(taught()[1][0] - math.log(2)) > 1e-5,
    ),
)
