"""The llama's paged forward, compiled and not, against its slow reference."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from model.network.batch import Batch, single_sequence
from model.network.config import NetworkConfig
from model.network.functional import rope, rope_table
from model.network.kv_storage import KVStorage
from model.network.linear import Floats
from model.network.llama import Llama, random_llama, reference_forward
from tests.model.network.quantised import TYPES, llama

CONFIG = NetworkConfig(
    vocab_size=97, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=8,
    intermediate_size=80, context_length=2048,
)  # fmt: skip
BLOCKWISE = NetworkConfig(
    vocab_size=96, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=24,
    intermediate_size=96, context_length=64, tie_embeddings=False,
)  # fmt: skip
TOLERANCE = 1e-4  # with logits of a few units


def token_ids(length: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, 96, length).tolist()


def in_parts(network: Llama, ids: list[int], cuts: list[int], block_size: int) -> Floats:
    """Logits of all tokens when the sequence is computed in parts."""
    kv = network.new_kv(-(-len(ids) // block_size), block_size)
    parts = itertools.pairwise([0, *cuts, len(ids)])
    batches = [single_sequence(ids[a:b], block_size, start=a) for a, b in parts]
    return np.concatenate([network.forward(batch, kv) for batch in batches])


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def network(request: pytest.FixtureRequest) -> Llama:
    return random_llama(CONFIG, 0) if request.param == "numpy" else llama(CONFIG, 0)


@pytest.mark.parametrize("block_size", [1, 4, 16, 48])
def test_prompt_agrees_with_reference(network: Llama, block_size: int) -> None:
    ids = token_ids(53)
    logits = in_parts(network, ids, [], block_size)
    np.testing.assert_allclose(logits, reference_forward(network, ids), atol=TOLERANCE)


def test_parts_agree_with_reference(network: Llama) -> None:
    ids = token_ids(53)
    logits = in_parts(network, ids, [7, 8, 9, 20, 21], 4)
    np.testing.assert_allclose(logits, reference_forward(network, ids), atol=TOLERANCE)


@pytest.mark.parametrize("type_name", TYPES)
def test_every_format_agrees_with_reference(type_name: str) -> None:
    network = llama(BLOCKWISE, 3, type_name)
    ids = token_ids(20)
    expected = reference_forward(network, ids)
    np.testing.assert_allclose(in_parts(network, ids, [3, 4], 16), expected, atol=TOLERANCE)
    batch, kv = single_sequence(ids, 16), network.new_kv(2, 16)
    np.testing.assert_allclose(network.forward_in_numpy(batch, kv), expected, atol=TOLERANCE)


def test_result_does_not_depend_on_the_cut() -> None:
    """Bit for bit, over a context of several spans, whether or not threads share it."""
    network = llama(CONFIG, 4)
    ids = token_ids(1300)
    whole = in_parts(network, ids, [], 16)
    parts = in_parts(network, ids, [1, 600, 601, 1000, 1290, *range(1291, 1300)], 16)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_allclose(whole, reference_forward(network, ids), atol=TOLERANCE)


def batch_of(parts: list[tuple[list[int], int]], tables: np.ndarray, block_size: int) -> Batch:
    """Sequences that each bring some tokens from a position on."""
    lengths = [len(ids) for ids, _ in parts]
    positions = np.concatenate([start + np.arange(len(ids)) for ids, start in parts])
    owner = np.repeat(np.arange(len(parts)), lengths)
    slots = tables[owner, positions // block_size] * block_size + positions % block_size
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Batch(
        token_ids=np.concatenate([ids for ids, _ in parts]).astype(np.int32),
        positions=positions.astype(np.int32),
        slots=slots.astype(np.int32),
        query_starts=starts.astype(np.int32),
        context_lens=np.array([start + len(ids) for ids, start in parts], np.int32),
        block_tables=tables,
        logit_rows=starts[1:].astype(np.int32) - 1,
    )


def test_result_does_not_depend_on_the_company(network: Llama) -> None:
    """Sequences of many lengths in scattered blocks: each as if it were alone."""
    rng = np.random.default_rng(5)
    lengths = [1, 30, 2, 17, 9, 40, 3, 16, 8, 5, 33]
    texts = [token_ids(length, seed) for seed, length in enumerate(lengths)]
    tables = rng.permutation(len(texts) * 12).reshape(len(texts), 12).astype(np.int32)
    kv = network.new_kv(tables.size, 4)
    cuts = [0 if length == 1 else int(rng.integers(1, length)) for length in lengths]
    begun = [(ids[:cut], 0) for ids, cut in zip(texts, cuts, strict=True) if cut]
    owners = [b for b, cut in enumerate(cuts) if cut]
    network.forward(batch_of(begun, tables[owners], 4), kv)
    rest = [(ids[cut:], cut) for ids, cut in zip(texts, cuts, strict=True)]
    together = network.forward(batch_of(rest, tables, 4), kv)
    for ids, logits in zip(texts, together, strict=True):
        alone = in_parts(network, ids, [], 4)[-1]
        np.testing.assert_allclose(logits, alone, atol=0 if network.is_compiled else 1e-4, rtol=0)


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
from tests.model.network.test_llama import BLOCKWISE, in_parts, llama, token_ids
network = llama(BLOCKWISE, 3, "Q4_1")
assert not network.is_compiled
sys.stdout.buffer.write(in_parts(network, token_ids(30), [5], 16).tobytes())
"""


def test_numpy_takes_over_without_numba() -> None:
    network = llama(BLOCKWISE, 3, "Q4_1")
    assert network.is_compiled
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, check=True)
    plain = np.frombuffer(done.stdout, np.float32).reshape(30, -1)
    compiled = in_parts(network, token_ids(30), [5], 16)
    np.testing.assert_allclose(plain, compiled, atol=TOLERANCE)


def test_kept_keys_and_values_are_those_written() -> None:
    rng = np.random.default_rng(0)
    kv = KVStorage(BLOCKWISE, num_blocks=3, block_size=4)
    keys, values = rng.standard_normal((2, 7, 4, 24), np.float32) * 9
    slots = np.array([8, 9, 10, 11, 0, 1, 2])
    kv.write(1, slots, keys, values)
    for written, read in zip((keys, values), kv.read(1, np.array([2, 0]), 7), strict=True):
        np.testing.assert_array_equal(read, written)
    assert not kv.read(0, np.array([2, 0]), 7)[0].any()


def test_blocks_fit_panels() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        KVStorage(BLOCKWISE, num_blocks=3, block_size=24)


def test_rope_depends_on_the_distance_alone() -> None:
    cos, sin = rope_table(50, 8, 10_000.0)
    q, k = np.random.default_rng(0).standard_normal((2, 1, 1, 8), np.float32)
    products = [
        (rope(q, cos[[a]], sin[[a]]) * rope(k, cos[[b]], sin[[b]])).sum()
        for a, b in ((7, 3), (44, 40))
    ]
    np.testing.assert_allclose(*products, rtol=1e-4)
