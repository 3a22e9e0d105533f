"""The sizes and constants of a llama-family network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What must be known of a llama before its weights have a meaning."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    context_length: int
    rope_base: float = 10_000.0
    rms_eps: float = 1e-5
    tie_embeddings: bool = True
    rope_factors: tuple[float, ...] = ()  # [head_dim / 2], by which the frequencies are divided

    def __post_init__(self) -> None:
        """Refuse sizes that no llama can have."""
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key-value heads evenly"
            )
        if self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {self.head_dim}")
        if len(self.rope_factors) not in (0, self.head_dim // 2):
            raise ValueError(f"{len(self.rope_factors)} rope factors for head_dim {self.head_dim}")

    @property
    def group_size(self) -> int:
        """How many query heads share one key-value head."""
        return self.num_heads // self.num_kv_heads
