"""Writes llama.npz: what transformers computes in float32 from the same dequantised weights.

    .venv-bench/bin/python tests/goldens/make_llama.py

For 8 prompts the logits at every position (the 64 highest, and 64 fixed ids), for 20 prompts the
48 tokens of a greedy answer, and the perplexity of a text of 2,000 tokens. Ids are stored with
them, so that the test needs no tokenizer.
"""

import os
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import tokenizers
import torch
from transformers import AutoModelForCausalLM

FOLDER = (
    Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser() / "models/smollm2"
)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_LOGITS, NUM_TOKENS, TEXT_TOKENS = 64, 48, 2000

SHORT = (
    "The capital of France is",
    "Water boils at",
    "In the beginning",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea,",
    "1, 2, 3, 4,",
    "The three primary colours are",
    "Der schnellste Weg nach Hause",
    "Dear Sir or Madam,",
    "To be or not to be,",
    "The opposite of hot is",
    "import numpy as np\n",
    "A recipe for bread: take flour,",
    "The moon is",
    "Q: How many legs has a spider?\nA:",
    "Music is the language of",
)
QUESTIONS = (
    "What is the capital of France?",
    "Explain what a prime number is.",
    "Write one sentence about the sea.",
    "How do I boil an egg?",
)
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def main() -> None:
    torch.set_num_threads(2)
    network = AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=GGUF, dtype=torch.float32)
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    prompts = [tokenizer.encode(text).ids for text in (*SHORT, *map(CHAT.format, QUESTIONS))]
    kept: dict[str, np.ndarray] = {}
    fixed = np.linspace(0, network.config.vocab_size - 1, NUM_LOGITS).astype(np.int32)
    with torch.inference_mode():
        for i, ids in enumerate([*prompts[:4], *prompts[-4:]]):
            logits = network(torch.tensor([ids])).logits[0].numpy()
            top = np.argsort(-logits, axis=1)[:, :NUM_LOGITS].astype(np.int32)
            kept |= {f"ids{i}": np.array(ids, np.int32), f"top{i}": top}
            kept[f"top_logits{i}"] = np.take_along_axis(logits, top, axis=1)
            kept[f"fixed_logits{i}"] = logits[:, fixed]
        for i, ids in enumerate(prompts):
            answer = network.generate(
                torch.tensor([ids]), max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS,
                do_sample=False, pad_token_id=0, suppress_tokens=None, eos_token_id=None,
            )  # fmt: skip
            kept[f"prompt{i}"] = np.array(ids, np.int32)
            kept[f"answer{i}"] = answer[0, len(ids) :].numpy().astype(np.int32)
        text = "\n".join(topics[name] for name in sorted(topics))
        ids = tokenizer.encode(text).ids[:TEXT_TOKENS]
        logits = network(torch.tensor([ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))
    kept |= {"fixed": fixed, "text": np.array(ids, np.int32), "perplexity": np.exp(loss.numpy())}
    np.savez_compressed(Path(__file__).with_name("llama.npz"), **kept)


if __name__ == "__main__":
    main()
