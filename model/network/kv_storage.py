"""Where keys and values live: fixed blocks of block_size tokens, written and read by slot.

Which block belongs to whom is the engine's knowledge.
"""

import numpy as np
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.linear import Floats


class KVStorage:
    """Keys and values of all layers, [layers, num_blocks · block_size, K, Dh]."""

    def __init__(self, config: NetworkConfig, num_blocks: int, block_size: int) -> None:
        """Reserve the pool; memory is touched only as blocks are written."""
        self.num_blocks, self.block_size = num_blocks, block_size
        slots = num_blocks * block_size
        shape = (config.num_layers, slots, config.num_kv_heads, config.head_dim)
        self.keys = np.zeros(shape, np.float32)
        self.values = np.zeros(shape, np.float32)

    def write(self, layer: int, slots: NDArray[np.integer], keys: Floats, values: Floats) -> None:
        """Store keys and values [T, K, Dh] at the tokens' slots."""
        self.keys[layer, slots] = keys
        self.values[layer, slots] = values

    def read(
        self, layer: int, block_table: NDArray[np.integer], length: int
    ) -> tuple[Floats, Floats]:
        """The first `length` keys and values [length, K, Dh] of the sequence with this table."""
        slots = (block_table[:, None] * self.block_size + np.arange(self.block_size)).ravel()
        return self.keys[layer, slots[:length]], self.values[layer, slots[:length]]
