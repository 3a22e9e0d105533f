"""A scenario: one TOML file that says who sends what, against which stack, and what must hold.

Unknown keys are refused with their path. `drivers` says what may answer and how much of the rates
it takes: a user's patience is the same whatever machine answers.
"""

import math
from pathlib import Path
from typing import Any, Literal, dataclass_transform

import msgspec

FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Unknown keys are refused."""


class Traffic(Section):
    """One stream of arrivals of one kind of user (`users`)."""

    user: Literal["chat", "rag", "cached", "prefix", "long", "embeddings", "replay", "hostile"]
    family: str = "smollm2"
    tenant: str = ""  # its key is in LOAD_KEY_<TENANT>, else in LOAD_KEY
    arrivals: Literal["poisson", "constant", "gamma", "trace"] = "poisson"
    rate: float | tuple[float, float] = 1.0  # a second; two: from the first to the second
    cv: float = 3.0  # of gamma's gaps: 1 is Poisson, more is burstier
    prompt: int = 0  # characters, for users who send a long one
    output: int = 32  # tokens, at most
    trace: str = ""  # CSV of timestamp, prompt tokens, output tokens
    speed: float = 1.0  # of the trace's time
    characters: float = 1.0  # of a prompt for each token of the trace


class Ask(Section):
    """What the administrator asks before a phase begins. In `url`: $gateway, $model, $faults."""

    url: str
    method: Literal["POST", "PUT"] = "POST"
    body: dict[str, Any] = {}


class Phase(Section):
    name: str
    seconds: float
    traffic: tuple[Traffic, ...]
    before: tuple[Ask, ...] = ()


class Good(Section):
    """What a request must keep to count for goodput [s]."""

    ttft: float = 1.0
    tpot: float = 0.1
    e2e: float = 30.0


class Hold(Section):
    """A bound on one figure of the summary, by its dotted name (`ttft.p99`, `error_share`).

    `than` names the phase of the same figure that `at_most_times` multiplies.
    """

    what: str
    phase: str
    tenant: str = ""
    at_most: float = math.inf
    at_least: float = -math.inf
    at_most_times: float = 1.0
    than: str = ""


class Stack(Section):
    """`config`: a gateway.toml beside the scenarios with $port, $model, $faults, $folder, $root."""

    config: str = "stacks/plain.toml"
    profile: str = "ops/profiles/h100-llama-8b.toml"
    model_flags: tuple[str, ...] = ()


class Scenario(Section):
    name: str
    about: str
    drivers: dict[Literal["emulated", "real"], float]  # rates are times this; the first is meant
    phases: tuple[Phase, ...]
    seed: int = 1
    stack: Stack = Stack()
    good: Good = Good()
    holds: tuple[Hold, ...] = ()


def load(name: str) -> Scenario:
    """The scenario of this name or file. Raises FileNotFoundError, msgspec.ValidationError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise FileNotFoundError(f"no scenario {name!r}: say a .toml file, or {' '.join(NAMES)}")
    found = msgspec.toml.decode(path.read_bytes(), type=Scenario)
    phases = {phase.name for phase in found.phases}
    for hold in found.holds:
        if missing := {hold.phase, hold.than or hold.phase} - phases:
            raise msgspec.ValidationError(f"holds: {hold.what}: no phase {min(missing)!r}")
    return found
