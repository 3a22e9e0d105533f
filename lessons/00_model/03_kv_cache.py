"""Why is the second token so much cheaper than the first answer?

Because keys and values of earlier tokens never change: whoever stores them computes one row per
new token instead of all rows again. The price is memory, so much that a serving engine hands it
out in blocks, and shares the blocks of a common beginning between requests. Both are shown on the
pool that serves: the answer stays the same, the work does not.
"""

from functools import cache

import numpy as np

from lessons.story import Claim, Exercise, Result
from model.network.batch import single_sequence
from model.network.linear import Floats
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint

BLOCK = 16
PROMPT = "The capital of France is"


@cache
def checkpoint() -> Checkpoint:
    return load_llama("smollm2")


def greedy(num_tokens: int, with_cache: bool) -> tuple[list[int], int]:
    """Continue PROMPT greedily; the tokens, and how many rows the network computed for them."""
    network = checkpoint().network
    token_ids = checkpoint().tokenizer.encode(PROMPT)
    length = len(token_ids)
    kv = network.new_kv(-(-(length + num_tokens) // BLOCK), BLOCK)
    cached = rows = 0
    for _ in range(num_tokens):
        start = cached if with_cache else 0
        batch = single_sequence(token_ids[start:], BLOCK, start)
        rows += batch.num_tokens
        token_ids.append(int(network.forward(batch, kv)[-1].argmax()))
        cached = start + batch.num_tokens
    return token_ids[length:], rows


def last_logits(pieces: list[list[int]]) -> Floats:
    """Logits [V] after feeding one sequence in pieces, as chunked prefill does."""
    network = checkpoint().network
    kv = network.new_kv(-(-sum(map(len, pieces)) // BLOCK), BLOCK)
    start = 0
    for piece in pieces:
        logits = network.forward(single_sequence(piece, BLOCK, start), kv)
        start += len(piece)
    return logits[-1]


def kv_bytes_per_token() -> int:
    """2 (key and value) · layers · key-value heads · head width · 4 bytes."""
    config = checkpoint().network.config
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4


def run() -> Result:
    num_tokens = 12
    cached, rows_cached = greedy(num_tokens, with_cache=True)
    recomputed, rows_recomputed = greedy(num_tokens, with_cache=False)
    ids = checkpoint().tokenizer.encode(PROMPT * 6)
    whole, chunked = last_logits([ids]), last_logits([ids[:7], ids[7:9], ids[9:]])
    return {
        "tokens that differ without the cache": Claim(
            sum(a != b for a, b in zip(cached, recomputed, strict=True)), 0, 0
        ),
        "rows computed with the cache": Claim(rows_cached, 16, 16),
        "rows computed without": Claim(rows_recomputed, 126, 126),
        "largest logit difference, prompt in three pieces": Claim(
            float(np.abs(whole - chunked).max()), 0, 1e-3
        ),
        "kB of cache a token": Claim(kv_bytes_per_token() / 1e3, 46, 47),
    }


EXERCISES = (
    Exercise(
        "How many tokens of cache fit into 1 GiB?",
        23301,
        lambda: 2**30 // kv_bytes_per_token(),
    ),
    Exercise(
        "With 9 key-value heads instead of 3, how many times larger would the cache be?",
        3,
        lambda: checkpoint().network.config.num_heads // checkpoint().network.config.num_kv_heads,
    ),
    Exercise(
        f"A prompt of 40 tokens was served; the same prompt comes again. Blocks hold {BLOCK} "
        "tokens and only full ones are shared. How many tokens need no computing?",
        32,
        lambda: 40 // BLOCK * BLOCK,
    ),
)
