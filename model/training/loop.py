"""The one loop: batch, loss, gradients, step; and a checkpoint from which it goes on bit for bit.

An algorithm is its loss and its batches. Batches are a function of the step's number alone, so
that a checkpoint is three vectors and a number.
"""

import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.training.llama import Pack, TrainableLlama
from model.training.losses import Loss
from model.training.parameters import AdamW, Pace

Batches = Callable[[int], Sequence[Pack]]
STATE = "state.npz"


class OtherRun(ValueError):
    """The folder holds the checkpoint of a run with other settings or other data."""


class Diverged(ArithmeticError):
    """The loss is no number any more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did."""

    step: int
    loss: float
    gradient_length: float
    num_tokens: int
    seconds: float


class Run:
    """A network on its way. `settings` say which run it is; a checkpoint of another is refused."""

    def __init__(
        self, network: TrainableLlama, pace: Pace, folder: Path, settings: Mapping[str, Any]
    ) -> None:
        self.network = network
        self.optimizer = AdamW(network.trained, pace)
        self.folder = folder
        self.settings = json.dumps(settings, sort_keys=True)
        self.step = self.kept = 0  # steps done, and those that the checkpoint has
        if (folder / STATE).exists():
            self._load()

    @property
    def num_steps(self) -> int:
        return self.optimizer.pace.num_steps

    def train(
        self,
        loss: Loss,
        batches: Batches,
        save_every: int,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Go on to the last step, saving every so many and at the end. Raises Diverged."""
        while self.step < self.num_steps:
            report(self.take(loss, batches(self.step)))
            if self.step % save_every == 0 or self.step == self.num_steps:
                self.save()

    def take(self, loss: Loss, packs: Sequence[Pack]) -> Progress:
        """One step."""
        started = time.perf_counter()
        gradients = self.network.trained.zeros()
        value = loss(self.network, packs, gradients)
        length = self.optimizer.step(self.step, gradients)
        if not (np.isfinite([value, length]).all() and self.network.trained.is_finite):
            raise Diverged(f"the loss of step {self.step} is {value}: lower the learning rate")
        self.step += 1
        tokens = sum(len(pack.token_ids) for pack in packs)
        return Progress(self.step, value, length, tokens, time.perf_counter() - started)

    def save(self) -> None:
        """Write the state beside the old one, then put it in its place: one of them is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".{STATE}.{os.getpid()}"
        with beside.open("wb") as file:
            np.savez(file, step=self.step, settings=self.settings, **self._vectors())
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.folder / STATE)
        self.kept = self.step

    def _load(self) -> None:
        try:
            with (
                (self.folder / STATE).open("rb") as file,
                np.load(file, allow_pickle=False) as state,
            ):
                if str(state["settings"]) != self.settings:
                    raise OtherRun(
                        f"{self.folder} holds another run, begun with {state['settings']}:"
                        " choose another folder or remove that one"
                    )
                self.step = self.kept = int(state["step"])
                for name, vector in self._vectors().items():
                    vector[:] = state[name]
        except (KeyError, zipfile.BadZipFile) as error:
            raise OtherRun(f"{self.folder / STATE} is no checkpoint of ours") from error

    def _vectors(self) -> dict[str, Any]:
        optimizer = self.optimizer
        weights = self.network.trained.vector
        return {"weights": weights, "mean": optimizer.mean, "square": optimizer.square}
