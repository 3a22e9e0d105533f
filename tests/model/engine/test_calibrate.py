from pathlib import Path

import numpy as np
import pytest

from model.engine.calibrate import calibrate, to_toml
from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.cost import StepCost, load_profile
from model.engine.emulated import Babble, EmulatedRunner
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()
CONFIG = EngineConfig(context_length=2048, num_blocks=600, stop_ids=frozenset({257}))
COST = StepCost(
    tokens=(1, 8, 64, 512), seconds=(0.005, 0.03, 0.09, 0.45), per_sequence=1e-4,
    per_context_token=2e-6, per_pair=1e-8,
)  # fmt: skip


def test_the_cost_of_an_emulated_machine_is_found_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    runner = EmulatedRunner(COST, clock, Babble(), BYTES, end_id=257)
    found = calibrate(runner, BYTES, CONFIG, clock, "copy")
    assert found.num_steps > 100
    assert found.p90_error < 1e-6
    cost = found.profile.cost
    for tokens in (1, 5, 100, 512):
        expected = np.interp(tokens, COST.tokens, COST.seconds)
        assert np.interp(tokens, cost.tokens, cost.seconds) == pytest.approx(expected)
    rates = (cost.per_sequence, cost.per_context_token, cost.per_pair)
    assert rates == pytest.approx((1e-4, 2e-6, 1e-8))
    path = tmp_path / "copy.toml"
    path.write_text(to_toml(found.profile))
    assert load_profile(path) == found.profile


def test_a_small_engine_is_measured_as_far_as_it_goes() -> None:
    clock = VirtualClock()
    runner = EmulatedRunner(COST, clock, Babble(), BYTES, end_id=257)
    small = EngineConfig(context_length=256, num_blocks=16, max_num_seqs=4)
    found = calibrate(runner, BYTES, small, clock, "small")
    assert found.profile.cost.tokens[-1] == 64
    assert found.p90_error < 0.02  # so few loads do not tell all coefficients apart
