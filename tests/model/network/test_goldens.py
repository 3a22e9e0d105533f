"""The llama on real weights computes what transformers does from the same dequantised ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.network.batch import single_sequence
from model.network.linear import Floats
from model.network.llama import Llama
from model.weights import load_llama

pytestmark = pytest.mark.weights
GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "llama.npz")
BLOCK = 16


@pytest.fixture(scope="module")
def network() -> Llama:
    return load_llama("smollm2").network


def logits_of(network: Llama, token_ids: Any) -> Floats:
    """Logits [T, V] of one sequence, in steps of at most 256 tokens."""
    kv = network.new_kv(-(-len(token_ids) // BLOCK), BLOCK)
    parts = [
        network.forward(single_sequence(token_ids[start : start + 256], BLOCK, start), kv)
        for start in range(0, len(token_ids), 256)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("number", range(8))
def test_logits(network: Llama, number: int) -> None:
    logits = logits_of(network, GOLDENS[f"ids{number}"])
    top = np.take_along_axis(logits, GOLDENS[f"top{number}"].astype(np.intp), axis=1)
    assert np.abs(top - GOLDENS[f"top_logits{number}"]).max() < 1e-3
    fixed = logits[:, GOLDENS["fixed"]]
    assert np.abs(fixed - GOLDENS[f"fixed_logits{number}"]).max() < 1e-3


def test_greedy_answers(network: Llama) -> None:
    """Given the tokens before, each next token is the same; where not, the two best are a tie."""
    gaps = []
    for number in range(20):
        prompt, answer = GOLDENS[f"prompt{number}"], GOLDENS[f"answer{number}"]
        logits = logits_of(network, np.concatenate([prompt, answer[:-1]]))[len(prompt) - 1 :]
        differs = np.flatnonzero(logits.argmax(axis=1) != answer)
        if len(differs):
            row = np.sort(logits[differs[0]])
            gaps.append(float(row[-1] - row[-2]))
    assert len(gaps) <= 1
    assert all(gap < 1e-3 for gap in gaps), f"gaps between the two best: {gaps}"


def test_perplexity(network: Llama) -> None:
    text = GOLDENS["text"]
    logits = logits_of(network, text)[:-1].astype(np.float64)
    peak = logits.max(axis=1)
    total = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
    loss = np.mean(total - logits[np.arange(len(logits)), text[1:]])
    assert f"{np.exp(loss):.3g}" == f"{float(GOLDENS['perplexity']):.3g}"
