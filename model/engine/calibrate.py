"""From a real engine to the profile of an emulated one: measure steps, fit the cost model.

Knows which loads tell the coefficients apart. Leaves out how a network is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Sequence_
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.engine.clock import Clock
from model.engine.config import EngineConfig
from model.engine.cost import Profile, StepCost
from model.engine.engine import Engine
from model.engine.runners import Runner
from model.engine.sequence import Request, SamplingParams, Sequence
from model.network.batch import Batch
from model.tokenizer import Tokenizer

KNOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # tokens of a step between which costs are linear
# (sequences, prompt tokens, largest chunk): what is fitted, and another mix on which to check
LOADS = (
    (1, 8, 512), (1, 100, 16), (1, 300, 32), (1, 500, 64), (1, 500, 128), (1, 800, 256),
    (1, 1500, 512), (2, 60, 512), (4, 60, 64), (8, 30, 512), (8, 150, 128), (16, 30, 256),
    (16, 70, 512), (32, 15, 64), (32, 30, 512),
)  # fmt: skip
CHECKS = ((3, 50, 512), (6, 130, 96), (1, 900, 200), (12, 20, 48), (24, 40, 384))
ANSWER = 16  # tokens per answer
REPEATS = 3


class Step(NamedTuple):
    """One step as it was measured."""

    batch: Batch
    seconds: float


class Calibration(NamedTuple):
    """The errors are shares of the measured time, of steps that were not fitted."""

    profile: Profile
    num_steps: int
    median_error: float
    p90_error: float


def calibrate(
    runner: Runner, tokenizer: Tokenizer, config: EngineConfig, clock: Clock, name: str
) -> Calibration:
    """Measure some hundred steps of `runner`, the engine's own work included.

    Wants a quiet machine. Each step counts at the fastest of its repeats, a whole pass apart: what
    disturbs one pass seldom disturbs them all.
    """

    def measured(loads: Sequence_[tuple[int, int, int]]) -> list[Step]:
        return [step for load in loads for step in _run(runner, tokenizer, config, clock, load)]

    measured(LOADS[:3])  # compiles and warms up
    passes = [(measured(LOADS), measured(CHECKS)) for _ in range(REPEATS)]
    steps, checks = (
        [min(same, key=lambda step: step.seconds) for same in zip(*repeats, strict=True)]
        for repeats in zip(*passes, strict=True)
    )
    cost = fit(steps)
    errors = [abs(cost.of(step.batch) / step.seconds - 1) for step in checks]
    median, p90 = (float(np.quantile(errors, share)) for share in (0.5, 0.9))
    source = f"{len(steps)} measured steps; error on others: median {median:.1%}, p90 {p90:.1%}"
    profile = Profile(name=name, source=source, engine=config, step=cost)
    return Calibration(profile, len(steps), median, p90)


def fit(steps: Sequence_[Step]) -> StepCost:
    """Least squares of the relative errors; a rate that would be negative is nothing."""
    most = max(step.batch.num_tokens for step in steps)
    knots = [knot for knot in KNOTS if knot <= most]
    X = np.array([_features(step.batch, knots) for step in steps])
    X /= np.array([step.seconds for step in steps])[:, None]
    used = np.ones(X.shape[1], np.bool_)
    values = np.zeros(X.shape[1])
    while True:
        values[used] = np.linalg.lstsq(X[:, used], np.ones(len(X)), rcond=None)[0]
        wrong = (values < 0) & (np.arange(len(values)) >= len(knots))
        if not wrong.any():
            break
        used &= ~wrong
        values[wrong] = 0
    *at_knots, per_sequence, per_context_token, per_pair = values.tolist()
    return StepCost(
        tokens=tuple(knots),
        seconds=tuple(at_knots),
        per_sequence=per_sequence,
        per_context_token=per_context_token,
        per_pair=per_pair,
    )


def _features(batch: Batch, knots: Sequence_[int]) -> list[float]:
    """What each coefficient of the cost is multiplied by; see `StepCost.of`."""
    hats = [float(np.interp(batch.num_tokens, knots, row)) for row in np.eye(len(knots))]
    pairs = np.diff(batch.query_starts) @ batch.context_lens.astype(np.float64)
    return [*hats, batch.num_sequences, float(batch.context_lens.sum()), float(pairs)]


class _Watched:
    """A runner that remembers its last batch."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.batch: Batch

    def execute(self, batch: Batch, sequences: Sequence_[Sequence]) -> NDArray[Any]:
        self.batch = batch
        return self._runner.execute(batch, sequences)


def _run(
    runner: Runner,
    tokenizer: Tokenizer,
    config: EngineConfig,
    clock: Clock,
    load: tuple[int, int, int],
) -> list[Step]:
    """The steps of one load, or none if the engine is too small for it."""
    num_sequences, length, chunk = load
    if length + ANSWER > config.max_model_len or num_sequences > config.max_num_seqs:
        return []
    changes = {"prefix_caching": False, "max_num_batched_tokens": chunk, "prefill_chunk": chunk}
    watched = _Watched(runner)
    engine = Engine(watched, tokenizer, msgspec.structs.replace(config, **changes), clock)
    for i in range(num_sequences):
        params = SamplingParams(temperature=0.0, max_tokens=ANSWER, ignore_eos=True)
        engine.add(Request(id=str(i), prompt_ids=[1 + i] * length, params=params))
    steps = []
    while engine.has_work:
        begun = clock.now()
        engine.step()
        steps.append(Step(watched.batch, clock.now() - begun))
    return steps


def to_toml(profile: Profile) -> str:
    """The profile as `load_profile` reads it. TOML writes such values as JSON does."""
    comment = f"# {profile.name}, as `glassgate calibrate` measured it"
    top = {"name": profile.name, "source": profile.source}
    tables = {"step": profile.step, "roofline": profile.roofline, "engine": profile.engine}
    lines = [comment, *(f"{key} = {json.dumps(value)}" for key, value in top.items())]
    for table, struct in tables.items():
        if struct is not None:
            lines += ["", f"[{table}]"]
            values = msgspec.to_builtins(struct)
            lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None]
    return "\n".join(lines) + "\n"
