"""The shipped network: small, here without any download, and as good as its README says."""

from pathlib import Path

import numpy as np
import pytest

from gateway.config_file import load
from model.training import tiny
from model.training.llama import Pack, TrainableLlama, dense_weights
from model.training.losses import perplexity
from model.training.tiny import Recipe, answer, encode
from model.weights import load_llama
from model.weights.load import SHIPPED

CHECKPOINT = load_llama("tiny")


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 4_000_000


def test_it_is_of_the_shipped_recipe() -> None:
    assert CHECKPOINT.network.config == Recipe.read().config
    again = tiny.train_tokenizer(Recipe.read())
    assert again.backend.to_str() == CHECKPOINT.tokenizer.backend.to_str()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
        ("Count from 3 to 7.", "3, 4, 5, 6, 7"),
        ("Who are you?", "I am Tiny, a very small language model."),
    ],
)
def test_it_answers(question: str, said: str) -> None:
    assert answer(CHECKPOINT, [question]) == [said]


def test_its_perplexity_is_the_stated_one() -> None:
    nothing = {"nothing": np.zeros(0, np.float32)}
    network = TrainableLlama(CHECKPOINT.network.config, dense_weights(CHECKPOINT.network), nothing)
    texts = Recipe.read().texts("held out", 100, held_out=True)
    pack = Pack.of([encode(CHECKPOINT.tokenizer, text, 0.0) for text in texts])
    assert perplexity(network, [pack]) < 1.3


def test_a_gateway_can_be_configured_with_it() -> None:
    config = load(SHIPPED / "gateway.toml", env={}).config
    assert config.local is not None
    assert (config.local.model, config.local.embedder) == (Path(SHIPPED).name, "")
    assert [*config.families] == ["tiny"]
