"""Questions by their meaning: the nearest of those that differ in the last text alone.

Who embeds, and from which similarity on two questions are the same, the caller knows. Partitions
are hard walls: nothing in one is ever compared with anything in another.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


class Near(NamedTuple):
    key: str
    text: str
    similarity: float  # cosine


class Partition:
    """Unit vectors [n, D] by key, in a ring of at most `bound`."""

    def __init__(self, width: int, bound: int) -> None:
        self.keys: list[str] = []
        self._texts: list[str] = []
        self._places: dict[str, int] = {}
        self._rows = np.empty((min(8, bound), width), np.float32)
        self._bound = bound
        self._oldest = 0

    def add(self, key: str, text: str, vector: Vector) -> None:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._free_place(key)
        self._texts[place] = text
        self._rows[place] = vector

    def nearest(self, vector: Vector) -> Near:
        similar = self._rows[: len(self.keys)] @ vector
        best = int(similar.argmax())
        return Near(self.keys[best], self._texts[best], float(similar[best]))

    def forget(self, key: str) -> None:
        self._rows[self._places[key]] = 0  # near to nothing; its place is used again in its turn

    def _free_place(self, key: str) -> int:
        if len(self.keys) < self._bound:
            if len(self.keys) == len(self._rows):
                size = min(2 * len(self._rows), self._bound)
                self._rows = np.resize(self._rows, (size, self._rows.shape[1]))
            self.keys.append(key)
            self._texts.append("")
            return len(self.keys) - 1
        place, self._oldest = self._oldest, (self._oldest + 1) % self._bound
        del self._places[self.keys[place]]
        self.keys[place] = key
        return place


class Vectors:
    """At most `bound` vectors; whole partitions go, those not used for longest first."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._partitions: OrderedDict[str, Partition] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, partition: str, key: str, text: str, vector: Vector) -> None:
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Partition(len(vector), self._bound)
        before = len(found.keys)
        found.add(key, text, vector)
        self._size += len(found.keys) - before
        self._partitions.move_to_end(partition)
        while self._size > self._bound:
            _, oldest = self._partitions.popitem(last=False)
            self._size -= len(oldest.keys)

    def nearest(self, partition: str, vector: Vector) -> Near | None:
        found = self._partitions.get(partition)
        if found is None:
            return None
        self._partitions.move_to_end(partition)
        return found.nearest(vector)

    def forget(self, partition: str, key: str) -> None:
        """`key` has just been the nearest, but there is no answer to it any more."""
        self._partitions[partition].forget(key)
