"""Low-rank adapters: W · x + scale · B · (A · x), without touching W (arXiv:2106.09685).

Knows PEFT's names and settings. Leaves out files: `model.weights` reads them.
Alphabet: r rank, T tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.network.batch import Batch
from model.network.config import NetworkConfig
from model.network.linear import Floats
from model.network.llama_weights import PROJECTIONS, shapes
from model.network.panels import PackedLinear, pack
from model.network.tensor import Tensor

PEFT_NAME = re.compile(
    r"(?:base_model\.model\.)?model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)"
    r"\.lora_([AB])(?:\.default)?\.weight"
)
# settings that change the formula, with the values that leave it as it is
PLAIN = {
    "use_dora": (False, None), "bias": ("none", None), "lora_bias": (False, None),
    "fan_in_fan_out": (False, None), "alpha_pattern": ({}, None),
    "modules_to_save": ([], None), "trainable_token_indices": ([], {}, None),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LowRank:
    """The two factors of one projection's change; the scale is in `up` already."""

    down: PackedLinear  # A [r, in]
    up: PackedLinear  # scale · B [out, r]

    def __call__(self, x: Floats) -> Floats:
        """[in, T] → [out, T], to be added to the projection."""
        return self.up(self.down(x))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Adapter:
    """The changed projections of a network, by layer and name."""

    changes: Mapping[tuple[int, str], LowRank]

    @property
    def rank(self) -> int:
        """The largest rank of a change."""
        return max((change.down.out_features for change in self.changes.values()), default=0)

    @classmethod
    def from_peft(
        cls, config: NetworkConfig, settings: Mapping[str, Any], tensors: Mapping[str, Floats]
    ) -> "Adapter":
        """From adapter_config.json and the tensors of adapter_model.safetensors.

        Raises ValueError for what does not fit the network or changes the formula.
        """
        for name, harmless in PLAIN.items():
            if settings.get(name) not in harmless:
                raise ValueError(f"an adapter with {name} {settings[name]!r} is not supported")
        pairs: dict[tuple[int, str], dict[str, Floats]] = {}
        for name, tensor in tensors.items():
            match = PEFT_NAME.fullmatch(name)
            if match is None or match[2] not in PROJECTIONS:
                raise ValueError(f"an adapter's weight {name} has no place in a llama")
            pairs.setdefault((int(match[1]), match[2]), {})[match[3]] = tensor
        return cls({place: _low_rank(config, settings, place, p) for place, p in pairs.items()})


Segment = tuple[int, int, Adapter]  # tokens first … last of a batch have this adapter


def segments_of(batch: Batch, adapters: Mapping[str, Adapter]) -> list[Segment]:
    """Which tokens of the batch have an adapter; neighbours that share one are taken together."""
    segments: list[Segment] = []
    starts = batch.query_starts.tolist()
    for b, name in enumerate(batch.adapters):
        if name is None:
            continue
        first, adapter = starts[b], adapters[name]
        if segments and segments[-1][1] == first and segments[-1][2] is adapter:
            first = segments.pop()[0]
        segments.append((first, starts[b + 1], adapter))
    return segments


def _low_rank(
    config: NetworkConfig,
    settings: Mapping[str, Any],
    place: tuple[int, str],
    pair: Mapping[str, NDArray[Any]],
) -> LowRank:
    name = f"layers.{place[0]}.{place[1]}"
    wanted = shapes(config).get(name)
    if wanted is None or pair.keys() != {"A", "B"}:
        raise ValueError(f"an adapter must bring A and B of a projection of the network: {name}")
    down, up = (np.asarray(pair[factor], np.float32) for factor in "AB")
    rank = len(down)
    if (len(up), down.shape[1]) != wanted or up.shape[1] != rank:
        raise ValueError(f"an adapter's {name} is {up.shape} · {down.shape}, wanted {wanted}")
    root = rank**0.5 if settings.get("use_rslora") else rank
    scaled = up * np.float32(settings["lora_alpha"] / root)
    return LowRank(pack(Tensor.from_array(name, down)), pack(Tensor.from_array(name, scaled)))
