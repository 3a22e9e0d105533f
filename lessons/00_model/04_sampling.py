"""If the network is a fixed function, where does variety come from?

From the dice at its end. The network gives a score for each of 49,152 tokens; temperature sharpens
or flattens them, top_p cuts the tail off, and a seeded generator throws. At temperature 0 there
are no dice. The same steps, in the same order, are what the engine does for every request.
"""

from functools import cache

import numpy as np

from lessons.story import Claim, Exercise, Result
from model.network.batch import single_sequence
from model.network.functional import softmax
from model.network.linear import Floats
from model.weights import load_llama
from model.weights.checkpoint import Checkpoint

SURE = "The capital of France is"
OPEN = "My favourite word is"


@cache
def checkpoint() -> Checkpoint:
    return load_llama("smollm2")


@cache
def next_logits(text: str) -> Floats:
    """The scores [V] of what may come after `text`."""
    token_ids = checkpoint().tokenizer.encode(text)
    kv = checkpoint().network.new_kv(-(-len(token_ids) // 16), 16)
    return checkpoint().network.forward(single_sequence(token_ids, 16), kv)[-1]


def entropy(probabilities: Floats) -> float:
    """Surprise in bits: how many yes/no questions the choice is worth.

    >>> entropy(np.array([0.5, 0.25, 0.25]))
    1.5
    """
    some = probabilities[probabilities > 0]
    return float(-(some * np.log2(some)).sum())


def at_temperature(logits: Floats, temperature: float) -> Floats:
    """Probabilities after dividing the scores by the temperature.

    >>> at_temperature(np.array([1.0, 0.0]), 0.1).round(3).tolist()
    [1.0, 0.0]
    """
    return softmax(logits / temperature)


def nucleus(probabilities: Floats, top_p: float) -> Floats:
    """Keep the fewest tokens that together reach `top_p`, and rescale (arXiv:1904.09751).

    >>> nucleus(np.array([0.5, 0.3, 0.2]), 0.7).round(3).tolist()
    [0.625, 0.375, 0.0]
    """
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.zeros_like(probabilities)
    kept[order[before < top_p]] = probabilities[order[before < top_p]]
    return kept / kept.sum()


def distinct(text: str, temperature: float, throws: int = 50, seed: int = 0) -> int:
    """How many different tokens come up in `throws` throws of a seeded generator."""
    rng = np.random.default_rng(seed)
    probabilities = at_temperature(next_logits(text).astype(np.float64), temperature)
    return len(set(rng.choice(len(probabilities), throws, p=probabilities).tolist()))


def run() -> Result:
    sure, open_ = (at_temperature(next_logits(text), 1.0) for text in (SURE, OPEN))
    kept = nucleus(open_, 0.9)
    return {
        "bits of choice after a question with one answer": Claim(entropy(sure), 0.5, 5),
        "bits of choice after an open one": Claim(entropy(open_), 4, 12),
        "the same, temperature 0.5": Claim(entropy(at_temperature(next_logits(OPEN), 0.5)), 0.5, 6),
        "tokens left by top_p 0.9, of 49,152": Claim(float((kept > 0).sum()), 20, 3000),
        "different tokens in 50 throws, temperature 1": Claim(distinct(OPEN, 1.0), 15, 50),
        "different tokens in 50 throws, temperature 0.2": Claim(distinct(OPEN, 0.2), 1, 8),
    }


EXERCISES = (
    Exercise(
        "What is the single most probable continuation of 'The capital of France is'?",
        " Paris",
        lambda: checkpoint().tokenizer.decode([int(next_logits(SURE).argmax())]),
    ),
    Exercise(
        "Two requests with the same seed, at temperature 1: the same answer?",
        True,
        lambda: distinct(OPEN, 1.0, seed=7) == distinct(OPEN, 1.0, seed=7),
    ),
    Exercise(
        "Does temperature ever change which token is the most probable?",
        False,
        lambda: len({int(at_temperature(next_logits(OPEN), t).argmax()) for t in (0.3, 1, 3)}) > 1,
    ),
)
