"""A network small enough for float64 and for goldens, and sequences for it."""

import numpy as np

from model.network.config import NetworkConfig
from model.network.llama import random_llama
from model.training.llama import LowRankSettings, Pack, TrainableLlama, dense_weights
from model.training.operations import Array

CONFIG = NetworkConfig(
    vocab_size=32, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
    intermediate_size=24, context_length=32,
)  # fmt: skip
NETWORK = random_llama(CONFIG, seed=1)
ADAPTER = LowRankSettings(rank=3, alpha=6.0)
# chosen, rejected, chosen, rejected, with a prompt that does not count and a token that counts half
SEQUENCES = [
    ([3, 1, 4, 1, 5, 9, 2, 6], [0, 0, 0, 1, 1, 1, 0.5, 1]),
    ([3, 1, 4, 8, 8], [0, 0, 0, 1, 1]),
    ([2, 7, 1, 8, 2, 8], [0, 0, 1, 1, 1, 1]),
    ([2, 7, 30, 31, 7, 5, 1], [0, 0, 1, 1, 1, 1, 1]),
]
PACK = Pack.of(SEQUENCES)


def whole(dtype: type = np.float32, **options: bool) -> TrainableLlama:
    """Every weight is trained."""
    weights = {name: it.astype(dtype) for name, it in dense_weights(NETWORK).items()}
    return TrainableLlama(CONFIG, {}, weights, **options)


def adapted(seed: int | None = 5, **options: bool) -> TrainableLlama:
    """With an adapter; B is drawn by `seed`, or zero without one."""
    network = TrainableLlama.with_adapter(NETWORK, ADAPTER, seed=4, **options)
    if seed is not None:
        rng = np.random.default_rng(seed)
        for name in network.trained:
            if name.endswith(".B"):
                b = network.trained[name]
                b[...] = rng.standard_normal(b.shape) / 10
    return network


def flat(network: TrainableLlama, gradients: Array) -> dict[str, Array]:
    """A vector of gradients by the names of the parameters."""
    named = network.trained.zeros()
    named.vector[:] = gradients
    return dict(named)
