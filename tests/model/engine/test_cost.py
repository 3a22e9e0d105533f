from pathlib import Path

import msgspec
import numpy as np
import pytest

from model.engine.cost import StepCost, load_profile
from model.network.batch import Batch

PROFILES = sorted(Path("ops/profiles").glob("*.toml"))


def batch_of(*parts: tuple[int, int]) -> Batch:
    """Each part is (tokens computed, length of the context with them)."""
    counts, contexts = np.array(parts, np.int32).T
    none = np.zeros(0, np.int32)
    return Batch(
        token_ids=np.zeros(counts.sum(), np.int32),
        positions=none,
        slots=none,
        query_starts=np.concatenate(([0], counts.cumsum())).astype(np.int32),
        context_lens=contexts,
        block_tables=none[None],
        logit_rows=none,
    )


def test_each_part_has_its_price() -> None:
    cost = StepCost(
        tokens=(1, 11, 21), seconds=(10, 10, 20), per_sequence=100, per_context_token=1000,
        per_pair=1e6,
    )  # fmt: skip
    assert cost.of(batch_of((1, 7))) == 10 + 100 + 7_000 + 7e6
    assert cost.of(batch_of((16, 20), (1, 5))) == 16 + 200 + 25_000 + 325e6
    assert cost.of(batch_of((41, 41))) == 40 + 100 + 41_000 + 41**2 * 1e6


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_shipped_profiles(path: Path) -> None:
    profile = load_profile(path)
    cost = profile.cost
    decode, busy = cost.of(batch_of((1, 500))), cost.of(batch_of(*[(1, 500)] * 64))
    prefill = cost.of(batch_of((2000, 2000)))
    assert 1e-3 < decode < 0.2
    assert decode < busy < 64 * decode
    assert prefill < 2000 * decode / 2
    assert profile.engine.max_model_len >= 2048
    assert profile.source.strip()


def test_there_are_profiles() -> None:
    names = {path.stem for path in PROFILES}
    assert {f"{gpu}-llama-{size}" for gpu in ("a100", "h100") for size in ("8b", "70b")} <= names


def test_published_latency_of_vllm_is_met() -> None:
    """The H100 profile with the bandwidth of an H200: 6.5 ms a token, as the profile's source."""
    roofline = load_profile(Path("ops/profiles/h100-llama-8b.toml")).roofline
    assert roofline is not None
    cost = msgspec.structs.replace(roofline, bytes_per_s=4.8e12).step_cost()
    assert cost.of(batch_of(*[(1, 96)] * 8)) == pytest.approx(6.5e-3, rel=0.05)
    # 2 · 8.03e9 operations for a token of a long prompt, at half of 989 TFLOP/s
    assert cost.of(batch_of((4000, 4000))) == pytest.approx(4000 * 32.5e-6, rel=0.15)


def test_profiles_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    head = 'name = "x"\nsource = "y"\n[engine]\ncontext_length = 10\n'
    path.write_text(head + "[step]\nper_token = 1\n")
    with pytest.raises(msgspec.ValidationError, match=r"per_token.*\$\.step"):
        load_profile(path)
    path.write_text(head)
    with pytest.raises(msgspec.ValidationError, match="either"):
        load_profile(path)
    with pytest.raises(ValueError, match="rise"):
        StepCost(tokens=(2, 1), seconds=(1, 1))
