"""A network that takes its time and says what it was told to: a GPU server without the GPU.

The engine around it is the real one: scheduler, blocks, limits, metrics. Leaves out how long a
step takes (`cost`).
"""

from __future__ import annotations

import json
import random
import string
import zlib
from array import array
from collections.abc import Iterator
from collections.abc import Sequence as Sequence_
from itertools import cycle
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.engine.clock import Clock
from model.engine.cost import Profile, StepCost
from model.engine.engine import Engine
from model.engine.sequence import Sequence
from model.network.batch import Batch
from model.tokenizer import Tokenizer


class Script(Protocol):
    """Where the answers come from."""

    def answer(self, prompt_ids: list[int], index: int) -> str:
        """What copy `index` of a request says to this prompt; asked once per copy."""
        ...


def emulated_engine(profile: Profile, script: Script, tokenizer: Tokenizer, clock: Clock) -> Engine:
    """An engine as the profile runs it, on this clock, over any tokenizer with an end of text."""
    end_id = tokenizer.eos_id
    if end_id is None:
        raise ValueError("the tokenizer has no token that ends a text")
    changes = {"samples": False, "stop_ids": frozenset({end_id})}
    config = msgspec.structs.replace(profile.engine, **changes)
    runner = EmulatedRunner(profile.cost, clock, script, tokenizer, end_id)
    return Engine(runner, tokenizer, config, clock)


class EmulatedRunner:
    """Chooses tokens by a script; advances the clock by what the step would have cost.

    In a busy engine a step's time counts from the end of the one before, so what Python does in
    between is part of it, as it is on a real server. `drift` tells how far this machine falls
    behind: 0.1 means that steps take 10 % longer than the model says.
    """

    def __init__(
        self, cost: StepCost, clock: Clock, script: Script, tokenizer: Tokenizer, end_id: int
    ) -> None:
        self._cost = cost
        self._clock = clock
        self._script = script
        self._tokenizer = tokenizer
        self._end_id = end_id
        self._due = 0.0
        self._members: set[Sequence] = set()
        self.modelled = self.elapsed = 0.0  # seconds

    @property
    def drift(self) -> float:
        return self.elapsed / self.modelled - 1 if self.modelled else 0.0

    def execute(self, batch: Batch, sequences: Sequence_[Sequence]) -> NDArray[np.int32]:
        seconds, members = self._cost.of(batch), set(sequences)
        goes_on = not members.isdisjoint(self._members)
        begun = self._due if goes_on else self._clock.now()
        owners = np.searchsorted(batch.query_starts, batch.logit_rows, side="right") - 1
        places = batch.positions[batch.logit_rows] + 1
        tokens = [
            self._token(sequences[owner], place)
            for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
        ]
        now = self._clock.now()
        self._due = max(begun + seconds, now)
        self._members = members
        self.modelled += seconds
        self.elapsed += self._due - begun
        self._clock.advance(self._due - now)
        return np.array(tokens, np.int32)

    def _token(self, sequence: Sequence, place: int) -> int:
        """The token at `place`; an answer that may not end starts over."""
        if not sequence.script:
            text = self._script.answer(sequence.request.prompt_ids, sequence.index)
            ids = self._tokenizer.encode(text, allow_special=False)
            sequence.script = [*ids, self._end_id]
        return sequence.script[(place - sequence.num_prompt_tokens) % len(sequence.script)]


class Echo:
    """Says back the last turn of a chat, or the whole of a prompt without turns."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def answer(self, prompt_ids: list[int], index: int) -> str:
        special = self._tokenizer.special_ids
        marks = [at for at, token_id in enumerate(prompt_ids) if token_id in special]
        if len(marks) < 3:
            return self._tokenizer.decode(prompt_ids)
        # the last mark opens the answer; the two before stand around the last turn
        turn = self._tokenizer.decode(prompt_ids[marks[-3] : marks[-2]])
        _, _, content = turn.partition("\n")
        return content or turn


class Babble:
    """Random words, the same for the same prompt and seed; lengths around `mean_characters`."""

    def __init__(self, seed: int = 0, mean_characters: int = 400) -> None:
        self._seed = seed
        self._mean_characters = mean_characters

    def answer(self, prompt_ids: list[int], index: int) -> str:
        prompt = zlib.crc32(array("i", prompt_ids).tobytes())
        rng = random.Random(f"{self._seed} {prompt} {index}")  # noqa: S311  (nothing is secret)
        length = 1 + int(rng.expovariate(1 / self._mean_characters))
        letters = "".join(rng.choices(string.ascii_lowercase + "     ", k=length))
        return " ".join(letters.split())


class Replay:
    """The "text" of each line of a JSONL file in turn, over and over."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines if line.strip()]
        if not texts:
            raise ValueError(f"{path} has no line with a text")
        self._texts: Iterator[str] = cycle(texts)

    def answer(self, prompt_ids: list[int], index: int) -> str:
        return next(self._texts)
