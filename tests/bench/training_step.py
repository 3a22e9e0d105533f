"""One step of supervised fine-tuning with an adapter, ours or PyTorch's, in a process of its own.

    python tests/bench/training_step.py ours|torch [ROUNDS]

SmolLM2-135M in float32, rank 8 on all seven projections of every layer, 4 sequences of 256 tokens,
half of them counted, AdamW, no activations computed twice. PyTorch gets the same: transformers'
network, PEFT's adapter, logits for the counted tokens only, sequences of one length so that none
is padded. The last line of standard output is one JSON object: tok_s, peak_mb and the first loss.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

BATCH, LENGTH, RANK, ALPHA = 4, 256, 8, 16.0
FOLDER = Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser()
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def sequences() -> list[list[int]]:
    return [[1000 + (b * 7919 + i * 31) % 40_000 for i in range(LENGTH)] for b in range(BATCH)]


def ours() -> Callable[[], float]:
    from model.training.llama import LowRankSettings, Pack, TrainableLlama
    from model.training.loop import Run
    from model.training.losses import negative_log_likelihood
    from model.training.parameters import Pace
    from model.weights import load_llama

    checkpoint = load_llama("smollm2")
    network = TrainableLlama.with_adapter(checkpoint.network, LowRankSettings(RANK, ALPHA), seed=0)
    del checkpoint
    half = [0.0] * (LENGTH // 2) + [1.0] * (LENGTH - LENGTH // 2)
    pack = Pack.of([(ids, half) for ids in sequences()])
    run = Run(network, Pace(num_steps=1000, learning_rate=2e-4), Path("/nonexistent"), {})
    return lambda: run.take(negative_log_likelihood, [pack]).loss


def torch() -> Callable[[], float]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
    folder = FOLDER / "models" / "smollm2"
    base = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    network = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    network.train()
    trained = [it for it in network.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, betas=(0.9, 0.99), weight_decay=0.0)
    ids = torch.tensor(sequences())
    half = LENGTH // 2

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        kept = LENGTH - half + 1  # logits from the one before the first counted token on
        logits = network(input_ids=ids, logits_to_keep=kept, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, half:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def main(who: str, rounds: int) -> None:
    step = {"ours": ours, "torch": torch}[who]()
    first = step()
    best = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        best = max(best, BATCH * LENGTH / (time.perf_counter() - started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tok_s": round(best, 1), "peak_mb": round(peak), "loss": round(first, 4)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
