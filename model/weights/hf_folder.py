"""Models in Hugging Face's layout: config.json, safetensors, tokenizer.json.

Knows the names of LlamaForCausalLM and BertModel. Any setting that would change the arithmetic is
honoured or refused by name.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.network.config import NetworkConfig
from model.network.minilm import EncoderConfig, MiniLM
from model.network.minilm import shapes as encoder_shapes
from model.tokenizer import Tokenizer
from model.weights.checkpoint import Checkpoint, build_llama, check_shapes
from model.weights.errors import MissingTensor, UnsupportedArchitecture
from model.weights.safetensors_file import read_folder
from model.weights.settings import Settings

IN_LAYER = {
    "input_layernorm": "input_norm", "post_attention_layernorm": "post_norm",
    **{f"self_attn.{x}_proj": f"{x}_proj" for x in ("q", "k", "v", "o")},
    **{f"mlp.{x}_proj": f"{x}_proj" for x in ("gate", "up", "down")},
}  # fmt: skip
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
COMPUTED = {
    "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "quantization_config": None,
}  # fmt: skip
MAX_TOKENS = 256  # word pieces that the sentence encoders of this family were trained on


def load_llama_folder(folder: Path) -> Checkpoint:
    """The chat model in `folder`; WeightsError if it is damaged or needs what is not here."""
    settings = Settings.read(folder / "config.json")
    _refuse_other(folder, settings, "LlamaForCausalLM")
    chat = Settings.read_if_any(folder / "tokenizer_config.json")
    generation = Settings.read_if_any(folder / "generation_config.json")
    config = _llama_config(settings)
    tensors = {
        _canonical_name(name): tensor
        for name, tensor in read_folder(folder).items()
        if not name.endswith("rotary_emb.inv_freq")  # follows from rope_theta
    }
    if config.tie_embeddings:
        tensors.pop("lm_head", None)  # a copy of the embedding in some files
    eos = generation.get("eos_token_id", settings.get("eos_token_id"))
    stops = [] if eos is None else eos if isinstance(eos, list) else [eos]
    ids = {"bos_id": settings.get("bos_token_id"), "eos_id": stops[0] if stops else None}
    return Checkpoint(
        name=folder.name,
        network=build_llama(config, tensors),
        tokenizer=_tokenizer(folder, **ids),
        chat_template=_chat_template(folder, chat),
        stop_ids=frozenset(stops),
        sampling={key: generation[key] for key in SAMPLING if generation.get(key) is not None},
    )


def load_encoder_folder(folder: Path) -> MiniLM:
    """The sentence encoder in `folder`: a BERT, mean pooling, unit vectors."""
    settings = Settings.read(folder / "config.json")
    _refuse_other(folder, settings, "BertModel")
    settings.require({"hidden_act": "gelu", "position_embedding_type": "absolute"})
    pooling = Settings.read_if_any(folder / "1_Pooling" / "config.json")
    pooling.require({"pooling_mode_mean_tokens": True})
    config = EncoderConfig(
        vocab_size=settings["vocab_size"],
        hidden_size=settings["hidden_size"],
        num_layers=settings["num_hidden_layers"],
        num_heads=settings["num_attention_heads"],
        intermediate_size=settings["intermediate_size"],
        num_positions=settings["max_position_embeddings"],
        norm_eps=settings["layer_norm_eps"],
        max_tokens=min(MAX_TOKENS, settings["max_position_embeddings"]),
    )
    tensors = {name.removeprefix("bert."): tensor for name, tensor in read_folder(folder).items()}
    expected = encoder_shapes(config)
    check_shapes(expected, tensors)
    weights = {name: tensors[name].dequantize() for name in expected}
    return MiniLM(config, weights, _tokenizer(folder, max_length=config.max_tokens))


def _refuse_other(folder: Path, settings: Mapping[str, Any], architecture: str) -> None:
    named = settings.get("architectures") or [settings.get("model_type", "nothing")]
    if architecture not in named:
        raise UnsupportedArchitecture(f"{folder} is a {named[0]}; {architecture} is wanted here")


def _llama_config(settings: Settings) -> NetworkConfig:
    settings.require(COMPUTED)
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    D, heads = settings["hidden_size"], settings["num_attention_heads"]
    head_dim = settings.get("head_dim") or D // heads
    rope_base = rope.get("rope_theta", settings.get("rope_theta", 10_000.0))
    return NetworkConfig(
        vocab_size=settings["vocab_size"],
        hidden_size=D,
        num_layers=settings["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=settings.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        intermediate_size=settings["intermediate_size"],
        context_length=settings["max_position_embeddings"],
        rope_base=rope_base,
        rms_eps=settings["rms_norm_eps"],
        tie_embeddings=settings.get("tie_word_embeddings", False),
        rope_factors=_rope_factors(rope, rope_base, head_dim),
    )


def _rope_factors(rope: Mapping[str, Any], base: float, head_dim: int) -> tuple[float, ...]:
    """By what Llama 3 divides each frequency: 1 for fast ones, `factor` for slow ones, a blend."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    if kind == "linear":
        return (float(rope["factor"]),) * (head_dim // 2)
    if kind != "llama3":
        raise UnsupportedArchitecture(f"rope_type {kind!r} does not run here")
    frequencies = base ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    slow, fast = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((turns - slow) / (fast - slow), 0, 1)
    return tuple((1 / (share + (1 - share) / rope["factor"])).tolist())


def _canonical_name(name: str) -> str:
    """A name that is not known stays as it is, and is refused by it."""
    if match := LAYER.fullmatch(name):
        layer, part = match.groups()
        return f"layers.{layer}.{IN_LAYER[part]}" if part in IN_LAYER else name
    ends = {"model.embed_tokens.weight": "embed_tokens", "model.norm.weight": "norm"}
    return ends.get(name, name.removesuffix(".weight") if name == "lm_head.weight" else name)


def _tokenizer(folder: Path, **options: int | None) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise MissingTensor(f"{folder} has no {path.name}")
    return Tokenizer.from_file(path, **options)


def _chat_template(folder: Path, chat: Mapping[str, Any]) -> str | None:
    """From its own file, else from tokenizer_config.json, where it may be one of several."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    template = chat.get("chat_template")
    if isinstance(template, list):
        named: Iterable[Mapping[str, str]] = template
        return {entry["name"]: entry["template"] for entry in named}.get("default")
    return template
