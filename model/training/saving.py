"""What training leaves behind: an adapter's folder as PEFT writes it, or a whole network's folder
in Hugging Face's layout. `model.weights` reads both, and so do their own libraries; an adapter can
be trained on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from model.network.config import NetworkConfig
from model.training.llama import TrainableLlama
from model.training.operations import Array
from model.weights.adapter import load_adapter
from model.weights.safetensors_file import read_safetensors
from model.weights.settings import Settings

ADAPTER = "adapter_model.safetensors"
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
PLACES = {name: f"self_attn.{name}" for name in ATTENTION} | {name: f"mlp.{name}" for name in MLP}
PLACES |= {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
ENDS = {"embed_tokens": "model.embed_tokens", "norm": "model.norm", "lm_head": "lm_head"}


def save_adapter(network: TrainableLlama, folder: Path, base: str) -> None:
    """adapter_config.json and adapter_model.safetensors; `base` names what it changes."""
    adapter = network.adapter
    if adapter is None:
        raise ValueError("this network has no adapter")
    tensors = {_peft_name(name): array for name, array in network.trained.items()}
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": list(adapter.targets), "inference_mode": True,
        "fan_in_fan_out": False, "use_rslora": False, "use_dora": False,
    }  # fmt: skip
    _write(folder, ADAPTER, tensors, {"adapter_config.json": settings})


def start_from(network: TrainableLlama, folder: Path) -> None:
    """Put the adapter in `folder` in the place of the fresh one.

    Raises WeightsError for one that does not fit the network, ValueError for one of another form.
    """
    load_adapter(folder, network.config)
    settings = Settings.read(folder / "adapter_config.json")
    settings.require({"use_rslora": False})
    asked = network.adapter
    if asked is None or (settings["r"], settings["lora_alpha"]) != (asked.rank, asked.alpha):
        rank, alpha = settings["r"], settings["lora_alpha"]
        raise ValueError(f"{folder} has --rank {rank} --alpha {alpha}, which must be said here too")
    tensors = read_safetensors(folder / ADAPTER)
    found = {name: tensor.dequantize() for name, tensor in tensors.items()}
    wanted = {_peft_name(name): array for name, array in network.trained.items()}
    if {n: it.shape for n, it in found.items()} != {n: it.shape for n, it in wanted.items()}:
        raise ValueError(f"{folder} does not change what we train: {', '.join(asked.targets)}")
    for name, array in wanted.items():
        array[:] = found[name]


def save_llama(
    config: NetworkConfig, weights: Mapping[str, Array], folder: Path, others: Mapping[str, Any]
) -> None:
    """config.json and model.safetensors in half precision; `others`: further JSON files."""
    tensors = {
        f"{hugging_name(name)}.weight": array.astype(np.float16) for name, array in weights.items()
    }
    settings = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "dtype": "float16", "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size, "rms_norm_eps": config.rms_eps,
        "max_position_embeddings": config.context_length, "rope_theta": config.rope_base,
        "tie_word_embeddings": config.tie_embeddings,
    }  # fmt: skip
    _write(folder, "model.safetensors", tensors, {"config.json": settings, **others})


def hugging_name(name: str) -> str:
    """layers.3.q_proj → model.layers.3.self_attn.q_proj"""
    if name in ENDS:
        return ENDS[name]
    _, index, part = name.split(".")
    return f"model.layers.{index}.{PLACES[part]}"


def _peft_name(name: str) -> str:
    """layers.3.q_proj.A → base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"""
    place, _, factor = name.rpartition(".")
    return f"base_model.model.{hugging_name(place)}.lora_{factor}.weight"


def _write(folder: Path, name: str, tensors: dict[str, Array], files: Mapping[str, Any]) -> None:
    """Weights last and in one move: a folder that has them is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for other, settings in files.items():
        (folder / other).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    beside = folder / f".{name}"
    save_file({key: np.ascontiguousarray(it) for key, it in tensors.items()}, beside,
              metadata={"format": "pt"})  # fmt: skip
    os.replace(beside, folder / name)
