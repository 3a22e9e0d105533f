"""Which knob of sampling does what, and to which prompts?

Temperature bends the whole distribution. top_k, top_p and min_p cut its tail off, each by another
measure: a number of tokens, a share of the mass, a share of the likeliest. Penalties and biases
move single tokens. One setting meets every prompt, sharp or flat, so what a knob does is only seen
in two distributions side by side: of a question with one answer, and of one with a thousand.
These are the functions that the engine draws with.
"""

from functools import cache

import numpy as np

from lessons.chat import chat_text, checkpoint, next_logits
from lessons.story import Claim, Exercise, Result
from model.engine.sampler import candidates
from model.engine.sequence import SamplingParams
from model.network.linear import Floats

ONE = "What is the capital of France?", "The capital of France is"
MANY = "Tell me a story.", "Once upon a time, there was a"
Place = tuple[str, str]  # a question, and how far the answer has come


@cache
def logits(place: Place) -> Floats:
    question, begun = place
    return next_logits(chat_text([{"role": "user", "content": question}]) + begun)


def kept(place: Place, **knobs: float) -> Floats:
    """The probabilities of the tokens that may be drawn, highest first."""
    _, weights = candidates(logits(place), SamplingParams(max_tokens=1, **knobs))
    return np.sort(weights.astype(np.float64) / weights.sum(dtype=np.float64))[::-1]


def entropy(p: Floats) -> float:
    """Surprise in bits.

    >>> entropy(np.array([0.5, 0.5]))
    1.0
    """
    some = p[p > 0]
    return float(-(some * np.log2(some)).sum())


def biased(place: Place, token: str, bias: float) -> float:
    """The probability of a token whose score is raised by `bias`."""
    moved = logits(place).astype(np.float64)
    token_id = checkpoint().tokenizer.encode(token)[0]
    moved[token_id] += bias
    p = np.exp(moved - moved.max())
    return float(p[token_id] / p.sum())


def run() -> Result:
    return {
        "bits, one answer": Claim(entropy(kept(ONE)), 0, 2),
        "bits, many answers": Claim(entropy(kept(MANY)), 3, 10),
        "bits, many answers, temperature 0.5": Claim(entropy(kept(MANY, temperature=0.5)), 1, 6),
        "bits, many answers, temperature 2": Claim(entropy(kept(MANY, temperature=2)), 9, 16),
        "tokens left by top_k 40, one answer": Claim(len(kept(ONE, top_k=40)), 40, 41),
        "tokens left by top_p 0.9, one answer": Claim(len(kept(ONE, top_p=0.9)), 1, 5),
        "tokens left by top_p 0.9, many answers": Claim(len(kept(MANY, top_p=0.9)), 30, 3000),
        "tokens left by min_p 0.1, many answers": Claim(len(kept(MANY, min_p=0.1)), 2, 40),
        "mass beyond top_k 40, many answers": Claim(1 - kept(MANY)[:40].sum(), 0.05, 0.6),
        "' Rome' after a bias of 10, times as likely": Claim(
            biased(ONE, " Rome", 10) / biased(ONE, " Rome", 0), 50, 22_027
        ),
    }


EXERCISES = (
    Exercise(
        "top_p 0.9 at temperature 2: are more tokens left than at temperature 1?",
        True,
        lambda: len(kept(MANY, top_p=0.9, temperature=2)) > len(kept(MANY, top_p=0.9)),
    ),
    Exercise(
        "Does a lower temperature ever change the order of the tokens?",
        False,
        lambda: (
            not np.array_equal(
                np.argsort(logits(MANY), kind="stable"),
                np.argsort(logits(MANY) / np.float32(0.5), kind="stable"),
            )
        ),
    ),
    Exercise(
        "Which cuts deeper where there are many answers: top_p 0.9 or min_p 0.1?",
        "min_p",
        lambda: "min_p" if len(kept(MANY, min_p=0.1)) < len(kept(MANY, top_p=0.9)) else "top_p",
    ),
)
