"""Writes training.npz and peft/: what PyTorch's autograd and PEFT make of the small network.

    .venv-bench/bin/python tests/goldens/make_training.py

training.npz: losses and all gradients of full training, of an adapter and of DPO; the logits of an
adapter that we saved and PEFT loaded, and of one that PEFT saved (kept in peft/).
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import log_softmax, logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "model" / "training")]

from small import ADAPTER, CONFIG, NETWORK, SEQUENCES, adapted  # noqa: E402

from model.training.llama import dense_weights  # noqa: E402
from model.training.saving import hugging_name, save_adapter  # noqa: E402

BETA = 0.1


def network() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=CONFIG.vocab_size, hidden_size=CONFIG.hidden_size,
        num_hidden_layers=CONFIG.num_layers, num_attention_heads=CONFIG.num_heads,
        num_key_value_heads=CONFIG.num_kv_heads, head_dim=CONFIG.head_dim,
        intermediate_size=CONFIG.intermediate_size, rms_norm_eps=CONFIG.rms_eps,
        max_position_embeddings=CONFIG.context_length, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": CONFIG.rope_base},
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    weights = {
        f"{hugging_name(k)}.weight": torch.tensor(v) for k, v in dense_weights(NETWORK).items()
    }
    made.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    return made.eval()


def likelihoods(model: torch.nn.Module) -> list[torch.Tensor]:
    """Of each sequence: the weighted log p of its tokens."""
    found = []
    for ids, weights in SEQUENCES:
        logits = model(torch.tensor([ids])).logits[0, :-1]
        values = log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]
        found.append(values * torch.tensor(weights[1:]))
    return found


def mean_loss(model: torch.nn.Module) -> torch.Tensor:
    return -torch.cat(likelihoods(model)).sum() / sum(sum(weights) for _, weights in SEQUENCES)


def preference_loss(model: PeftModel) -> torch.Tensor:
    ours = torch.stack([it.sum() for it in likelihoods(model)])
    with torch.no_grad(), model.disable_adapter():
        base = torch.stack([it.sum() for it in likelihoods(model)])
    gains = ours - base
    return -logsigmoid(BETA * (gains[0::2] - gains[1::2])).mean()


def gradients(kind: str, loss: torch.Tensor, model: torch.nn.Module) -> dict[str, np.ndarray]:
    model.zero_grad()
    loss.backward()
    found = {f"{kind} {n}": p.grad.numpy() for n, p in model.named_parameters() if p.requires_grad}
    return {f"{kind} loss": loss.detach().numpy(), **{k: v.copy() for k, v in found.items()}}


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([SEQUENCES[0][0]])).logits[0].numpy()


def main() -> None:
    kept = gradients("full", mean_loss(base := network()), base)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(adapted(), Path(folder), "small")
        ours = PeftModel.from_pretrained(network(), folder, is_trainable=True)
    kept["ours in peft"] = logits(ours)
    kept |= gradients("adapter", mean_loss(ours), ours)
    kept |= gradients("dpo", preference_loss(ours), ours)
    settings = LoraConfig(r=ADAPTER.rank, lora_alpha=7, use_rslora=True,
                          target_modules=["q_proj", "v_proj", "down_proj"])  # fmt: skip
    torch.manual_seed(0)
    theirs = get_peft_model(network(), settings)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(HERE / "peft")
    (HERE / "peft" / "README.md").unlink(missing_ok=True)
    kept["theirs"] = logits(theirs)
    np.savez_compressed(HERE / "training.npz", **kept)


main()
