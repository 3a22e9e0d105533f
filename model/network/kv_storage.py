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
    """Keys and values of all layers. P panels, K heads, G groups of 16 features."""

    def __init__(self, config: NetworkConfig, num_blocks: int, block_size: int) -> None:
        """Reserve the pool; memory is touched only as blocks are written."""
        if block_size > LANES and block_size % LANES:
            raise ValueError(f"a block keeps up to 16 tokens or a multiple of 16, not {block_size}")
        self.num_blocks, self.block_size = num_blocks, block_size
        self.kept = min(block_size, LANES)  # tokens of a panel
        self.panels_per_block = block_size // self.kept
        groups = -(-config.head_dim // LANES)
        self._head_dim = config.head_dim
        heads = (config.num_layers, config.num_kv_heads)
        panels = num_blocks * self.panels_per_block
        shape = (*heads, panels, groups, LANES, LANES)
        self.keys = paged(shape)  # …, feature, token
        shape = (*heads, groups, panels, LANES, LANES)
        self.values = paged(shape)  # …, token, feature

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
        width = ((0, 0), (0, 0), (0, -self._head_dim % LANES))
        groups = (*keys.shape[:2], -1, LANES)
        self.keys[layer, :, panels, :, :, lanes] = np.pad(keys, width).reshape(groups)
        self.values[layer, :, :, panels, lanes] = np.pad(values, width).reshape(groups)

    def read(self, layer: int, block_table: Ints, length: int) -> tuple[Floats, Floats]:
        """The first `length` keys and values [length, K, Dh] of the sequence with this table."""
        slots = (block_table[:, None] * self.block_size + np.arange(self.block_size)).ravel()
        panels, lanes = self.places(slots[:length])
        keys = self.keys[layer, :, panels, :, :, lanes]  # [length, K, G, 16], as the values
        values = self.values[layer, :, :, panels, lanes]
        flat = (*keys.shape[:2], -1)
        return keys.reshape(flat)[..., : self._head_dim], values.reshape(flat)[
            ..., : self._head_dim
        ]


def paged(shape: tuple[int, ...]) -> Floats:
    """Zeros that take memory page by page as they are written; numpy's own come in huge pages."""
    memory = mmap.mmap(-1, 4 * math.prod(shape))
    return np.frombuffer(memory, np.float32).reshape(shape)
