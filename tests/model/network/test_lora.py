"""Adapters: PEFT's names and settings, and the same numbers as with the change merged in."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.network.batch import single_sequence
from model.network.config import NetworkConfig
from model.network.linear import DenseLinear
from model.network.llama import Llama
from model.network.llama_weights import PROJECTIONS, shapes
from model.network.lora import Adapter
from tests.model.network.quantised import llama
from tests.model.network.test_llama import batch_of, token_ids

CONFIG = NetworkConfig(
    vocab_size=96, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    intermediate_size=96, context_length=64,
)  # fmt: skip
ROOM = {name: "self_attn" if name[0] in "qkvo" else "mlp" for name in PROJECTIONS}
SETTINGS = {"lora_alpha": 16, "use_dora": False, "bias": "none", "target_modules": "all-linear"}


def peft(rank: int, seed: int, names: tuple[str, ...] = PROJECTIONS) -> dict[str, Any]:
    """The tensors of a PEFT folder, as it names them."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer in range(CONFIG.num_layers):
        for name in names:
            out, inputs = shapes(CONFIG)[f"layers.{layer}.{name}"]
            prefix = f"base_model.model.model.layers.{layer}.{ROOM[name]}.{name}.lora_"
            tensors[f"{prefix}A.weight"] = rng.standard_normal((rank, inputs), np.float32) / 8
            tensors[f"{prefix}B.weight"] = rng.standard_normal((out, rank), np.float32) / 8
    return tensors


def merged(network: Llama, tensors: dict[str, Any], scale: float) -> Llama:
    """A plain network whose weights are W + scale · B · A."""
    layers = []
    for index, layer in enumerate(network.weights.layers):
        changed = {}
        for name in PROJECTIONS:
            weight = getattr(layer, name).dense()
            prefix = f"base_model.model.model.layers.{index}.{ROOM[name]}.{name}.lora_"
            if f"{prefix}A.weight" in tensors:
                product = tensors[f"{prefix}B.weight"] @ tensors[f"{prefix}A.weight"]
                weight = weight + scale * product
            changed[name] = DenseLinear(weight)
        layers.append(dataclasses.replace(layer, **changed))
    return Llama(CONFIG, dataclasses.replace(network.weights, layers=tuple(layers)))


def logits_alone(network: Llama, ids: list[int], adapter: str | None = None) -> Any:
    batch = dataclasses.replace(single_sequence(ids, 16), adapters=(adapter,))
    return network.forward(batch, network.new_kv(4, 16))


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def network(request: pytest.FixtureRequest) -> Llama:
    network = llama(CONFIG, 7, "Q4_1")
    if request.param == "numpy":
        network = merged(network, {}, 0)
    assert network.is_compiled == (request.param == "compiled")
    return network


@pytest.mark.parametrize("rank", [1, 8, 40])
def test_unmerged_equals_merged(network: Llama, rank: int) -> None:
    tensors = peft(rank, seed=rank)
    network.adapters["a"] = Adapter.from_peft(CONFIG, SETTINGS, tensors)
    ids = token_ids(20)
    expected = logits_alone(merged(network, tensors, 16 / rank), ids)
    np.testing.assert_allclose(logits_alone(network, ids, "a"), expected, atol=1e-4)
    assert np.abs(logits_alone(network, ids) - expected).max() > 0.1


def test_adapters_and_the_base_in_one_batch(network: Llama) -> None:
    network.adapters["a"] = Adapter.from_peft(CONFIG, SETTINGS, peft(4, 1))
    network.adapters["b"] = Adapter.from_peft(CONFIG, SETTINGS, peft(8, 2, ("q_proj", "up_proj")))
    names = (None, "a", "a", "b", None, "a")
    texts = [token_ids(length, length) for length in (5, 9, 1, 12, 3, 7)]
    tables = np.arange(len(texts) * 3, dtype=np.int32).reshape(-1, 3)
    batch = batch_of([(ids, 0) for ids in texts], tables, 4)
    together = network.forward(
        dataclasses.replace(batch, adapters=names), network.new_kv(tables.size, 4)
    )
    for ids, name, logits in zip(texts, names, together, strict=True):
        np.testing.assert_allclose(logits, logits_alone(network, ids, name)[-1], atol=1e-4)


def test_an_unknown_adapter_is_an_error(network: Llama) -> None:
    with pytest.raises(KeyError, match="nobody"):
        logits_alone(network, [1, 2], "nobody")


def test_rank_stabilised_scale() -> None:
    tensors = peft(16, 1, ("v_proj",))
    adapter = Adapter.from_peft(CONFIG, {**SETTINGS, "use_rslora": True}, tensors)
    prefix = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
    np.testing.assert_allclose(
        adapter.changes[1, "v_proj"].up.dense(), tensors[prefix] * 4, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "rename", "message"),
    [
        ({"use_dora": True}, {}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({}, {"self_attn.q_proj": "self_attn.w_proj"}, "no place"),
        ({}, {"layers.1": "layers.2"}, r"layers\.2"),
        ({}, {"lora_A": "lora_B"}, "A and B"),
        ({}, {"q_proj": "k_proj"}, "wanted"),
    ],
)
def test_what_does_not_fit_is_refused(
    settings: dict[str, Any], rename: dict[str, str], message: str
) -> None:
    tensors = peft(4, 0, ("q_proj",))
    for old, new in rename.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match=message):
        Adapter.from_peft(CONFIG, SETTINGS | settings, tensors)
