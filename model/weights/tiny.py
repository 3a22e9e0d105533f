"""Random networks that need no file: for tests, and to try the stack before any download.

Both are called `tiny-random`. They compute as the real ones do and mean nothing.
"""

import numpy as np

from model.network.config import NetworkConfig
from model.network.llama import random_llama
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
