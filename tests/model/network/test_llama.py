"""The llama's paged forward against its slow reference."""

import itertools

import numpy as np
import pytest

from model.network.batch import Batch, single_sequence
from model.network.config import NetworkConfig
from model.network.llama import random_llama, reference_forward

CONFIG = NetworkConfig(
    vocab_size=97, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=8,
    intermediate_size=80, context_length=64,
)  # fmt: skip


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_whole_prompt_agrees_with_reference(block_size: int) -> None:
    network = random_llama(CONFIG, seed=0)
    ids = np.random.default_rng(1).integers(0, CONFIG.vocab_size, 23).tolist()
    kv = network.new_kv(num_blocks=64 // block_size, block_size=block_size)
    logits = network.forward(single_sequence(ids, block_size), kv)
    np.testing.assert_allclose(logits, reference_forward(network, ids), atol=2e-5)


def test_chunks_and_single_tokens_agree_with_reference() -> None:
    network = random_llama(CONFIG, seed=0)
    ids = np.random.default_rng(1).integers(0, CONFIG.vocab_size, 23).tolist()
    kv = network.new_kv(num_blocks=8, block_size=4)
    cuts = [0, 7, 8, 9, 20, 23]
    parts = [
        network.forward(single_sequence(ids[a:b], 4, start=a), kv)
        for a, b in itertools.pairwise(cuts)
    ]
    np.testing.assert_allclose(np.concatenate(parts), reference_forward(network, ids), atol=2e-5)


def test_two_sequences_in_scattered_blocks() -> None:
    network = random_llama(CONFIG, seed=3)
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 97, 6).tolist(), rng.integers(0, 97, 5).tolist()
    kv = network.new_kv(num_blocks=8, block_size=4)
    tables = np.array([[5, 2], [7, 0]], np.int32)
    lengths = [6, 5]
    positions = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    owner = np.repeat([0, 1], lengths)
    batch = Batch(
        token_ids=np.array(first + second, np.int32),
        positions=positions,
        slots=tables[owner, positions // 4] * 4 + positions % 4,
        query_starts=np.array([0, 6, 11], np.int32),
        context_lens=np.array(lengths, np.int32),
        block_tables=tables,
        logit_rows=np.array([5, 10], np.int32),
    )
    logits = network.forward(batch, kv)
    expected = [reference_forward(network, ids)[-1] for ids in (first, second)]
    np.testing.assert_allclose(logits, expected, atol=2e-5)
