"""What every test shares: the async backend, hypothesis' profile, and the rule for real weights."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("glassgate", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("glassgate")

WEIGHTS = ("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "minilm/model.safetensors")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def weights_missing() -> bool:
    home = Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser()
    return not all((home / "models" / name).is_file() for name in WEIGHTS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("weights") and weights_missing():
        pytest.skip("the real weights are not here: glassgate pull smollm2 minilm")
