"""How long a step takes on a machine that is not here: the cost model behind an emulated network.

    seconds = weights(T) + B · per_sequence + Σ context · per_context_token + Σ q·context · per_pair

T tokens are computed for B sequences, each bringing q tokens into a context. weights(T) is linear
between given points, so it covers both a roofline (flat while weights stream from memory, rising
once arithmetic is the limit) and an engine that was measured. Profiles are TOML files.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from model.engine.config import EngineConfig
from model.network.batch import Batch


class StepCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Coefficients in seconds."""

    tokens: tuple[float, ...] = (1,)  # rising
    seconds: tuple[float, ...] = (0.02,)  # of a step of so many tokens; the last slope goes on
    per_sequence: float = 0.0
    per_context_token: float = 0.0
    per_pair: float = 0.0  # of a computed and an attended token

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.seconds) or list(self.tokens) != sorted({*self.tokens}):
            raise ValueError("tokens must rise, and seconds have one entry for each")

    def of(self, batch: Batch) -> float:
        """Seconds of one step."""
        contexts = batch.context_lens.astype(np.float64)
        pairs = float(np.diff(batch.query_starts) @ contexts)
        return (
            self._weights(batch.num_tokens)
            + batch.num_sequences * self.per_sequence
            + float(contexts.sum()) * self.per_context_token
            + pairs * self.per_pair
        )

    def _weights(self, num_tokens: int) -> float:
        x, y = self.tokens, self.seconds
        if num_tokens > x[-1] and len(x) > 1:
            return y[-1] + (num_tokens - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return float(np.interp(num_tokens, x, y))


class Roofline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network on accelerators, in published figures (Williams et al., Roofline, CACM 2009)."""

    num_parameters: float
    bytes_per_parameter: float
    num_layers: int
    hidden_size: int
    num_kv_heads: int
    head_dim: int
    num_devices: int
    bytes_per_s: float  # of one device's memory, at its peak
    flops_per_s: float  # of one device's matrix units at that precision, without sparsity
    bandwidth_share: float  # of the peak that is reached
    flops_share: float
    step_overhead: float  # seconds of a step in which neither weights nor arithmetic advance
    sequence_overhead: float

    def step_cost(self) -> StepCost:
        """The same in seconds."""
        bandwidth = self.num_devices * self.bytes_per_s * self.bandwidth_share
        flops = self.num_devices * self.flops_per_s * self.flops_share
        streaming = self.num_parameters * self.bytes_per_parameter / bandwidth
        per_token = 2 * self.num_parameters / flops
        knee, far = streaming / per_token, 2 * streaming / per_token
        kv_bytes = 2 * self.num_layers * self.num_kv_heads * self.head_dim
        return StepCost(
            tokens=(1, knee, far),
            seconds=tuple(self.step_overhead + s for s in (streaming, streaming, 2 * streaming)),
            per_sequence=self.sequence_overhead,
            per_context_token=kv_bytes * self.bytes_per_parameter / bandwidth,
            per_pair=4 * self.num_layers * self.hidden_size / flops,
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine with its network and how it is run. Exactly one of `step` and `roofline`."""

    name: str
    source: str  # where the figures are from
    engine: EngineConfig
    step: StepCost | None = None
    roofline: Roofline | None = None

    def __post_init__(self) -> None:
        if (self.step is None) == (self.roofline is None):
            raise ValueError("a profile has either a step or a roofline")

    @property
    def cost(self) -> StepCost:
        return self.step or self.roofline.step_cost()  # type: ignore[union-attr]


def load_profile(path: Path) -> Profile:
    """Read a profile. Raises OSError, or msgspec.ValidationError that names the wrong key."""
    return msgspec.toml.decode(path.read_bytes(), type=Profile)
