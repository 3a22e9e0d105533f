"""How does a network know in which direction to move?

Every operation answers one question: if my output should change so, how should my inputs? Chained
from the loss to the weights, these answers are the gradient. That it is right can be seen without
any theory: nudge one weight, and the loss moves as the gradient said. Then the loop is a few lines:
loss, gradient, a step against it. One batch, repeated, must be learned by heart; a loop that cannot
do this is broken, whatever else it seems to do.
"""

from functools import cache

import numpy as np

from lessons.classroom import pack, pupil, questions_of, teach
from lessons.story import Claim, Exercise, Result
from model.training import operations as op
from model.training.losses import negative_log_likelihood
from model.training.operations import Array
from model.training.parameters import Pace


def by_nudging(x: Array, weight: Array, dy: Array, at: tuple[int, int]) -> float:
    """How the loss Σ dy · rms_norm(x) moves with x[at], by moving it."""
    h, values = 1e-6, []
    for sign in (1, -1):
        nudged = x.copy()
        nudged[at] += sign * h
        values.append(float(np.sum(op.rms_norm(nudged, weight, 1e-5)[0] * dy)))
    return (values[0] - values[1]) / (2 * h)


def largest_error() -> float:
    """Of the hand-written derivative of RMSNorm, over all inputs."""
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 8))
    weight = np.linspace(0.5, 1.5, 8)
    dx = op.rms_norm(x, weight, 1e-5)[1](dy)[0]
    return max(abs(by_nudging(x, weight, dy, at) - dx[at]) for at in np.ndindex(x.shape))


@cache
def promised_and_seen() -> tuple[float, float]:
    """A small step against the gradient: how far the loss should fall, and how far it does."""
    network, batch = pupil(), pack(questions_of("repeat", 8))
    gradients = network.trained.zeros()
    before = negative_log_likelihood(network, [batch], gradients)
    step = 0.01 / float(np.linalg.norm(gradients.vector))
    promised = step * float(gradients.vector @ gradients.vector)
    network.trained.vector[:] -= step * gradients.vector
    after = negative_log_likelihood(network, [batch], gradients)
    return promised, before - after


@cache
def losses() -> list[float]:
    """Of one batch of nonsense, again and again."""
    nonsense = [(f"Say {n}", f"{(n * 37 + 11) % 100} {(n * 53) % 100}") for n in range(8)]
    return teach(pupil(rank=16), [pack(nonsense)], num_steps=120, rate=1e-2)


def run() -> Result:
    promised, seen = promised_and_seen()
    return {
        "error of a derivative by hand": Claim(largest_error(), 0, 1e-6),
        "fall of the loss, seen / promised": Claim(seen / promised, 0.8, 1.2),
        "loss of one batch, at first": Claim(losses()[0], 2, 12),
        "loss of one batch, by heart": Claim(losses()[-1], 0, 0.1),
    }


def largest_rate() -> int:
    """The step at which a run of 100 with 10 of warm-up is fastest, counted from 0."""
    pace = Pace(num_steps=100, learning_rate=1.0, num_warmup=10)
    return max(range(100), key=pace.rate)


EXERCISES = (
    Exercise(
        "In a run of 100 steps with 10 of warm-up: which step (from 0) is the first at full rate?",
        9,
        largest_rate,
    ),
    Exercise(
        "A frozen weight needs no gradient of its own. Does its input still need one?",
        True,
        lambda: len(op.frozen_linear(np.ones((2, 3)), np.ones((4, 3)))[1](np.ones((2, 4)))) == 1,
    ),
)
