"""Where keys and values live: fixed blocks of block_size tokens, written and read by slot.

Both are kept as 16-bit codes with a scale for every 16 features: half the memory of float32, at
an error some thirty times smaller than half precision's. They lie in panels of up to 16 tokens as
`microkernel` wants them: a key's features are spread over the words of one lane, because the
queries meet 16 keys at once; a value's features lie side by side, because they add up.
Which block belongs to whom is the engine's knowledge.
"""

import numpy as np
from numpy.typing import NDArray

from model.network.config import NetworkConfig
from model.network.linear import Floats
from model.network.panels import LANES, aligned

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
        heads = (config.num_layers, num_blocks * self.panels_per_block, config.num_kv_heads)
        self.keys = aligned((*heads, groups, LANES, LANES), np.int16)  # …, feature, token
        self.key_scales = aligned((*heads, groups, LANES), np.float32)  # …, token
        self.values = aligned((*heads, groups, LANES, LANES), np.int16)  # …, token, feature
        self.value_scales = aligned((*heads, groups, LANES), np.float32)

    @property
    def num_bytes(self) -> int:
        """The size of the whole pool."""
        parts = (self.keys, self.key_scales, self.values, self.value_scales)
        return sum(part.nbytes for part in parts)

    def places(self, slots: Ints) -> tuple[Ints, Ints]:
        """Panel and lane of each slot."""
        return slots // self.kept, slots % self.kept

    def write(self, layer: int, slots: Ints, keys: Floats, values: Floats) -> None:
        """Store keys and values [T, K, Dh] at the tokens' slots."""
        panels, lanes = self.places(slots)
        codes, scales = self._encode(keys)
        self.keys[layer, panels, :, :, :, lanes] = codes
        self.key_scales[layer, panels, :, :, lanes] = scales
        codes, scales = self._encode(values)
        self.values[layer, panels, :, :, lanes] = codes
        self.value_scales[layer, panels, :, :, lanes] = scales

    def read(self, layer: int, block_table: Ints, length: int) -> tuple[Floats, Floats]:
        """The first `length` keys and values [length, K, Dh] of the sequence with this table."""
        slots = (block_table[:, None] * self.block_size + np.arange(self.block_size)).ravel()
        panels, lanes = self.places(slots[:length])
        pairs = (
            (self.keys[layer, panels, :, :, :, lanes], self.key_scales),
            (self.values[layer, panels, :, :, lanes], self.value_scales),
        )
        keys, values = (
            (codes * scales[layer, panels, :, :, lanes, None]).reshape(length, codes.shape[1], -1)[
                ..., : self._head_dim
            ]
            for codes, scales in pairs
        )
        return keys, values

    def _encode(self, vectors: Floats) -> tuple[NDArray[np.int16], Floats]:
        """[T, K, Dh] → codes [T, K, G, 16] and scales [T, K, G]; the kernels do the same."""
        padded = np.pad(vectors, ((0, 0), (0, 0), (0, -self._head_dim % LANES)))
        groups = padded.reshape(*vectors.shape[:2], -1, LANES)
        scales = np.abs(groups).max(axis=-1) / np.float32(32767)
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
        return np.rint(groups * inverse[..., None]).astype(np.int16), scales
