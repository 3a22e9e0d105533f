"""An engine over the fake network, and how to run one to its end."""

from collections.abc import Callable
from typing import Any

import pytest

from model.engine.clock import VirtualClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine, Output
from model.engine.runners import FakeRunner
from model.engine.sequence import Request, SamplingParams
from model.tokenizer import Tokenizer

BYTES = Tokenizer.byte_level()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return BYTES


@pytest.fixture
def fake_engine() -> Callable[..., Engine]:
    def make(**changes: Any) -> Engine:
        config = EngineConfig(**{"context_length": 512, "num_blocks": 64, "seed": 0} | changes)
        runner = FakeRunner(BYTES.vocab_size, config.num_blocks, config.block_size)
        return Engine(runner, BYTES, config, VirtualClock())

    return make


@pytest.fixture
def request_of() -> Callable[..., Request]:
    def make(id: str, prompt_ids: list[int], **params: Any) -> Request:  # noqa: A002
        named = {key: params.pop(key) for key in ("cache_salt", "adapter") if key in params}
        params = {"temperature": 0.0, "max_tokens": 8} | params
        return Request(id=id, prompt_ids=prompt_ids, params=SamplingParams(**params), **named)

    return make


@pytest.fixture
def run() -> Callable[..., dict[tuple[str, int], list[Output]]]:
    """Add all requests, step until nothing is left; the outputs of each copy in order."""

    def drive(engine: Engine, *requests: Request) -> dict[tuple[str, int], list[Output]]:
        outputs: dict[tuple[str, int], list[Output]] = {}
        for request in requests:
            engine.add(request)
        while engine.has_work:
            for output in engine.step():
                outputs.setdefault((output.request_id, output.index), []).append(output)
        return outputs

    return drive
