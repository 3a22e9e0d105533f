"""Random networks that need no file: for tests, and to try the stack before any download.

Both are called `tiny-random`. They compute as the real ones do and mean nothing.
"""

import numpy as np

from model.network.config import NetworkConfig
from model.network.llama import random_llama
from model.network.minilm import EncoderConfig, MiniLM, shapes
from model.tokenizer import Tokenizer
from model.weights.checkpoint import Checkpoint

NAME = "tiny-random"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_llama(seed: int = 0) -> Checkpoint:
    """A seeded llama of two layers over bytes; what it babbles is nearly all ASCII."""
    tokenizer = Tokenizer.byte_level()
    config = NetworkConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=16, intermediate_size=128, context_length=2048, tie_embeddings=False,
    )  # fmt: skip
    network = random_llama(config, seed)
    # Louder rows win: text of printable characters is easier to look at than U+FFFD
    network.weights.lm_head.dense()[np.arange(ord(" "), ord("~") + 1)] *= 4
    stop_ids = frozenset({257})
    return Checkpoint(NAME, network, tokenizer, CHAT_TEMPLATE, stop_ids)


def tiny_minilm(seed: int = 0) -> MiniLM:
    """A seeded encoder of two layers and width 64 over bytes."""
    tokenizer = Tokenizer.byte_level(max_length=256)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, num_heads=4,
        intermediate_size=128, num_positions=512, norm_eps=1e-12, max_tokens=256,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes(config).items()}
    for name, weight in weights.items():
        if weight.ndim == 2:
            weight[:] = rng.standard_normal(weight.shape) / np.sqrt(weight.shape[-1])
        elif name.endswith("LayerNorm.weight"):
            weight[:] = 1
    return MiniLM(config, weights, tokenizer)
