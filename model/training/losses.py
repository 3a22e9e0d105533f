"""What is made small: the two losses, over packs of tokens.

A loss adds its gradients up and returns its value, for the packs of one step together: how a step
is cut into packs changes nothing but the memory that it takes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from model.training.llama import Pack, TrainableLlama
from model.training.operations import Array
from model.training.parameters import Parameters

Loss = Callable[[TrainableLlama, Sequence[Pack], Parameters], float]


def negative_log_likelihood(
    network: TrainableLlama, packs: Sequence[Pack], gradients: Parameters
) -> float:
    """The weighted mean of -log p over all counted tokens of the step: pretraining and SFT."""
    total, loss = sum(float(pack.weights.sum()) for pack in packs), 0.0
    for pack in packs:
        share = pack.weights / np.float32(total)
        values, backward = network.log_likelihood(pack)
        loss -= float(share @ values)
        backward(-share, gradients)
    return loss


class PreferenceLoss:
    """DPO (arXiv:2305.18290): -log σ(β · (how much more than the base the chosen one is liked)).

    In a pack the sequences are chosen, rejected, chosen, rejected, … The base is what the network
    was before the first step: it shares the frozen weights. ln 2 then.
    """

    def __init__(self, base: TrainableLlama, beta: float = 0.1) -> None:
        self.base = base
        self.beta = beta

    def __call__(
        self, network: TrainableLlama, packs: Sequence[Pack], gradients: Parameters
    ) -> float:
        pairs, loss = sum(len(pack.starts) // 2 for pack in packs), 0.0
        for pack in packs:
            values, backward = network.log_likelihood(pack)
            margins = self.beta * self._margins(pack, values - self.base.score(pack))
            loss += float(np.logaddexp(0, -margins).sum()) / pairs
            slopes = -self.beta / (1 + np.exp(margins)) / pairs  # by a pair's difference
            signs = np.where(_sequence_of_rows(pack) % 2, -1, 1)
            dy = slopes[_sequence_of_rows(pack) // 2] * signs * pack.weights
            backward(dy.astype(values.dtype), gradients)
        return loss

    @staticmethod
    def _margins(pack: Pack, values: Array) -> Array:
        """Of each pair: the chosen one's sum of `values` less the rejected one's."""
        sums = np.zeros(len(pack.starts) - 1)
        np.add.at(sums, _sequence_of_rows(pack), values * pack.weights)
        return sums[0::2] - sums[1::2]


def _sequence_of_rows(pack: Pack) -> Array:
    return np.searchsorted(pack.starts, pack.rows, side="right") - 1


def perplexity(network: TrainableLlama, packs: Sequence[Pack]) -> float:
    """exp of the mean -log p of the counted tokens."""
    values = np.concatenate([network.score(pack) for pack in packs])
    weights = np.concatenate([pack.weights for pack in packs])
    return float(np.exp(-(values @ weights) / weights.sum()))
