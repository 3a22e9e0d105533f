"""A llama's weights: their canonical names, their shapes, and where each is used."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.network.config import NetworkConfig
from model.network.linear import Floats, Linear

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one transformer layer."""

    input_norm: Floats
    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    o_proj: Linear
    post_norm: Floats
    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear

    def projections(self) -> list[Linear]:
        """The linear layers in the order of their use."""
        return [getattr(self, name) for name in PROJECTIONS]


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything that was learned."""

    embed_tokens: Linear
    layers: tuple[Layer, ...]
    norm: Floats
    lm_head: Linear  # the same object as embed_tokens where they are tied

    @classmethod
    def from_named(
        cls, config: NetworkConfig, linears: Mapping[str, Linear], norms: Mapping[str, Floats]
    ) -> "Weights":
        """Weights by their canonical names."""
        layers = tuple(
            Layer(
                input_norm=norms[f"layers.{i}.input_norm"],
                post_norm=norms[f"layers.{i}.post_norm"],
                **{name: linears[f"layers.{i}.{name}"] for name in PROJECTIONS},
            )
            for i in range(config.num_layers)
        )
        embed = linears["embed_tokens"]
        head = embed if config.tie_embeddings else linears["lm_head"]
        return cls(embed, layers, norms["norm"], head)


def shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The canonical name and shape of every weight; lm_head only where it is not tied."""
    D, F = config.hidden_size, config.intermediate_size
    q_width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    per_layer: dict[str, tuple[int, ...]] = {
        "input_norm": (D,), "q_proj": (q_width, D), "k_proj": (kv_width, D),
        "v_proj": (kv_width, D), "o_proj": (D, q_width), "post_norm": (D,),
        "gate_proj": (F, D), "up_proj": (F, D), "down_proj": (D, F),
    }  # fmt: skip
    named = {
        f"layers.{i}.{name}": shape
        for i in range(config.num_layers)
        for name, shape in per_layer.items()
    }
    ends = {"embed_tokens": (config.vocab_size, D), "norm": (D,)}
    head = {} if config.tie_embeddings else {"lm_head": (config.vocab_size, D)}
    return {**ends, **head, **named}
