"""Adapters in PEFT's folders: what is read, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from model.network.config import NetworkConfig
from model.weights.adapter import load_adapter
from model.weights.errors import MissingTensor, UnsupportedArchitecture

CONFIG = NetworkConfig(
    vocab_size=32, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16,
    intermediate_size=64, context_length=16,
)  # fmt: skip
PREFIX = "base_model.model.model.layers.0.self_attn.k_proj.lora_"
A, B = np.full((2, 32), 0.5, np.float32), np.full((16, 2), 0.25, np.float32)


def folder(path: Path, tensors: dict[str, Any], **settings: Any) -> Path:
    save_file(tensors, path / "adapter_model.safetensors")
    whole = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | settings
    (path / "adapter_config.json").write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize("number", [np.float32, np.float16])
def test_the_change_is_the_scaled_product(tmp_path: Path, number: Any) -> None:
    pair = {f"{PREFIX}A.weight": A.astype(number), f"{PREFIX}B.weight": B.astype(number)}
    adapter = load_adapter(folder(tmp_path, pair), CONFIG)
    assert adapter.rank == 2
    change = adapter.changes[0, "k_proj"](np.eye(32, dtype=np.float32))
    np.testing.assert_allclose(change, 2 * B @ A)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingTensor, match=r"adapter_config\.json"):
        load_adapter(tmp_path, CONFIG)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingTensor, match=r"adapter_model\.safetensors"):
        load_adapter(tmp_path, CONFIG)
    with pytest.raises(MissingTensor, match="nothing"):
        load_adapter(folder(tmp_path, {}), CONFIG)
    with pytest.raises(UnsupportedArchitecture, match="A and B"):
        load_adapter(folder(tmp_path, {f"{PREFIX}A.weight": A}), CONFIG)
    with pytest.raises(UnsupportedArchitecture, match="peft_type"):
        load_adapter(folder(tmp_path, {f"{PREFIX}A.weight": A}, peft_type="IA3"), CONFIG)
