"""A linear layer's weight knows how to multiply; nobody else knows how it is stored.

Activations are features-major, [features, tokens]: the faster orientation for BLAS.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Linear(Protocol):
    """A weight of shape [out_features, in_features]."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...

    def __call__(self, x: Floats) -> Floats:
        """W @ x: [in_features, T] → [out_features, T]."""
        ...

    def rows(self, ids: NDArray[np.integer]) -> Floats:
        """The rows `ids` of the weight, [len(ids), in_features]: an embedding's lookup."""
        ...

    def dense(self) -> Floats:
        """The whole weight in float32, [out_features, in_features]."""
        ...


class DenseLinear:
    """A float32 weight multiplied by BLAS."""

    def __init__(self, weight: Floats) -> None:
        """Take over `weight` [out_features, in_features]."""
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.out_features, self.in_features = self.weight.shape

    def __call__(self, x: Floats) -> Floats:
        """W @ x."""
        return self.weight @ x

    def rows(self, ids: NDArray[np.integer]) -> Floats:
        """The rows `ids`."""
        rows: Floats = self.weight[ids]
        return rows

    def dense(self) -> Floats:
        """The weight itself, not a copy."""
        return self.weight
