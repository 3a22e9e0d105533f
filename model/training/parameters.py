"""What is trained, and how it moves: named arrays in one vector, AdamW over that vector.

Neither the optimiser nor a checkpoint needs a name: both see one vector.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from model.training.operations import Array


class Parameters(Mapping[str, Array]):
    """Named arrays that are views of one vector: what changes there changes them."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Copies `arrays`, which share one float type."""
        self.vector = np.concatenate([array.ravel() for array in arrays.values()])
        ends = np.cumsum([array.size for array in arrays.values()])
        self._views = {
            name: self.vector[end - array.size : end].reshape(array.shape)
            for (name, array), end in zip(arrays.items(), ends, strict=True)
        }

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.vector).all())

    def zeros(self) -> "Parameters":
        """As many zeros under the same names: gradients start so."""
        return Parameters({name: np.zeros_like(view) for name, view in self.items()})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: AdamW (arXiv:1711.05101) with warm-up, then a cosine down to a tenth."""

    num_steps: int
    learning_rate: float
    num_warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 1.0  # the longest gradient that is followed in full
    betas: tuple[float, float] = (0.9, 0.99)

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …"""
        if step < self.num_warmup:
            return self.learning_rate * (step + 1) / self.num_warmup
        done = (step - self.num_warmup) / max(1, self.num_steps - self.num_warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class AdamW:
    """Moments of a vector of gradients. Vectors of one row (norms) do not decay."""

    def __init__(self, parameters: Parameters, pace: Pace) -> None:
        self.pace = pace
        self.parameters = parameters
        self.mean = np.zeros_like(parameters.vector)
        self.square = np.zeros_like(parameters.vector)
        decays = {name: np.full_like(it, it.ndim > 1) for name, it in parameters.items()}
        self._decays = Parameters(decays).vector

    def step(self, step: int, gradients: Parameters) -> float:
        """Move the parameters; the gradient's length before it was clipped."""
        gradient, (beta1, beta2) = gradients.vector, self.pace.betas
        length = float(np.linalg.norm(gradient))
        gradient *= min(1.0, self.pace.clip / (length + 1e-12))
        self.mean += (1 - beta1) * (gradient - self.mean)
        self.square += (1 - beta2) * (gradient * gradient - self.square)
        mean, square = (
            moment / (1 - beta ** (step + 1))
            for moment, beta in ((self.mean, beta1), (self.square, beta2))
        )
        rate, vector = self.pace.rate(step), self.parameters.vector
        vector -= rate * self.pace.weight_decay * self._decays * vector
        vector -= rate * mean / (np.sqrt(square) + 1e-8)
        return length
