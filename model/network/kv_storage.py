"""Where keys and values live: fixed blocks of block_size tokens, written and read by slot.

Both are kept in float32: 16-bit codes halve the memory, but their error grows to 2e-3 in a logit,
which decides between tokens that nearly tie. They lie in panels of up to 16 tokens as `microkernel`
wants them: a key's features are spread over the words of a lane, because the queries meet 16 keys
at once; a value's features lie side by side, because they add up.
Which block belongs to whom is the engine's knowledge.
"""

import math
import mmap

import numpy as np
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.linear import Floats
from model.network.panels import LANES

Ints = NDArray[np.integer]


class KVStorage:
    """Keys and values of all layers: panels of [Dh, 16] for keys and of [16, Dh] for values."""

    def __init__(self, config: NetworkConfig, num_blocks: int, block_size: int) -> None:
        """Reserve the pool; memory is touched only as blocks are written."""
        if block_size > LANES and block_size % LANES:
            raise ValueError(f"a block keeps up to 16 tokens or a multiple of 16, not {block_size}")
        self.num_blocks, self.block_size = num_blocks, block_size
        self.kept = min(block_size, LANES)  # tokens of a panel
        self.panels_per_block = block_size // self.kept
        self._head_dim = config.head_dim
        width = -(-config.head_dim // LANES) * LANES  # the products take 16 features at a time
        panels = (config.num_layers, config.num_kv_heads, num_blocks * self.panels_per_block)
        self.keys = paged((*panels, width, LANES))
        self.values = paged((*panels, LANES, width))

    @property
    def num_bytes(self) -> int:
        """The size of the whole pool."""
        return self.keys.nbytes + self.values.nbytes

    def places(self, slots: Ints) -> tuple[Ints, Ints]:
        """Panel and lane of each slot."""
        return slots // self.kept, slots % self.kept

    def panel_tables(self, block_tables: Ints) -> NDArray[np.int32]:
        """The panels of the blocks of each sequence, [B, panels]."""
        ppb = self.panels_per_block
        tables = block_tables[:, :, None] * ppb + np.arange(ppb)
        return tables.reshape(len(block_tables), -1).astype(np.int32)

    def write(self, layer: int, slots: Ints, keys: Floats, values: Floats) -> None:
        """Store keys and values [T, K, Dh] at the tokens' slots."""
        panels, lanes = self.places(slots)
        self.keys[layer, :, panels, : self._head_dim, lanes] = keys
        self.values[layer, :, panels, lanes, : self._head_dim] = values

    def read(self, layer: int, block_table: Ints, length: int) -> tuple[Floats, Floats]:
        """The first `length` keys and values [length, K, Dh] of the sequence with this table."""
        slots = (block_table[:, None] * self.block_size + np.arange(self.block_size)).ravel()
        panels, lanes = self.places(slots[:length])
        keys = self.keys[layer, :, panels, : self._head_dim, lanes]
        return keys, self.values[layer, :, panels, lanes, : self._head_dim]


def paged(shape: tuple[int, ...]) -> Floats:
    """Zeros that take memory page by page as they are written; numpy's own come in huge pages."""
    memory = mmap.mmap(-1, 4 * math.prod(shape))
    return np.frombuffer(memory, np.float32).reshape(shape)
