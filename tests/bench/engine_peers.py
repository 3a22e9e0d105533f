"""The peers of `engine.py`, run by the Python of .venv-bench: llama.cpp and transformers.

    python tests/bench/engine_peers.py llamacpp|transformers 1,4,8

The same GGUF file, the same token ids, 2 threads; llama.cpp is batched through its own interface.
The last line of standard output is one JSON object.
"""

import json
import os
import sys
import time
from pathlib import Path

from engine import ANSWER, CONTEXT, PREFILL, prompt

FOLDER = Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser()
GGUF = FOLDER / "models" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
THREADS = 2


def llamacpp(batches: list[int]) -> dict[str, float]:
    import ctypes

    import llama_cpp as cpp
    import numpy as np

    @cpp.llama_log_callback
    def quiet(level: int, text: bytes, data: object) -> None:
        pass

    cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    cpp.llama_backend_init()
    model = cpp.llama_model_load_from_file(str(GGUF).encode(), cpp.llama_model_default_params())
    vocab_size = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(model))

    def context(streams: int) -> object:
        params = cpp.llama_context_default_params()
        params.n_ctx = max(PREFILL * 2, streams * (CONTEXT + ANSWER) * 2)
        params.n_batch = params.n_ubatch = PREFILL
        params.n_seq_max = streams
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = THREADS
        return cpp.llama_init_from_model(model, params)

    def decode(ctx: object, tokens: list[tuple[int, int, int, bool]]) -> None:
        """One batch of (token, position, sequence, is its logits row wanted)."""
        batch = cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if cpp.llama_decode(ctx, batch):
            raise RuntimeError("llama_decode failed")
        cpp.llama_batch_free(batch)

    def best(ctx: object, row: int) -> int:
        logits = cpp.llama_get_logits_ith(ctx, row)
        return int(np.ctypeslib.as_array(logits, (vocab_size,)).argmax())

    def prefill() -> float:
        ctx = context(1)
        ids = prompt(PREFILL)
        start = time.perf_counter()
        decode(ctx, [(token, i, 0, i == PREFILL - 1) for i, token in enumerate(ids)])
        best(ctx, PREFILL - 1)
        took = time.perf_counter() - start
        cpp.llama_free(ctx)
        return PREFILL / took

    def stream(streams: int) -> float:
        ctx = context(streams)
        last = []
        for number in range(streams):
            ids = prompt(CONTEXT, number)
            decode(ctx, [(t, i, number, i == CONTEXT - 1) for i, t in enumerate(ids)])
            last.append(best(ctx, CONTEXT - 1))
        start = time.perf_counter()
        for step in range(ANSWER - 1):
            decode(ctx, [(token, CONTEXT + step, s, True) for s, token in enumerate(last)])
            last = [best(ctx, s) for s in range(streams)]
        took = time.perf_counter() - start
        cpp.llama_free(ctx)
        return streams * (ANSWER - 1) / took

    prefill()
    return {"prefill_512": prefill()} | {f"decode_b{n}": stream(n) for n in batches}


def transformers(batches: list[int]) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    network = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )

    def prefill() -> float:
        ids = torch.tensor([prompt(PREFILL)])
        start = time.perf_counter()
        network(ids, logits_to_keep=1).logits.argmax(-1)
        return PREFILL / (time.perf_counter() - start)

    def stream(streams: int) -> float:
        ids = torch.tensor([prompt(CONTEXT, number) for number in range(streams)])
        out = network(ids, use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(ANSWER - 1):
            last = out.logits[:, -1:].argmax(-1)
            out = network(last, past_key_values=out.past_key_values, use_cache=True)
        out.logits[:, -1:].argmax(-1)
        return streams * (ANSWER - 1) / (time.perf_counter() - start)

    with torch.inference_mode():
        prefill()
        return {"prefill_512": prefill()} | {f"decode_b{n}": stream(n) for n in batches}


if __name__ == "__main__":
    run = {"llamacpp": llamacpp, "transformers": transformers}[sys.argv[1]]
    print(json.dumps(run([int(n) for n in sys.argv[2].split(",")])))
