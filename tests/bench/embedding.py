"""How fast the sentence encoder is, beside sentence-transformers on the same weights.

    python tests/bench/embedding.py [--rounds 3] [--peers PYTHON]

Passages a second, from text to unit vectors: 64 passages of 200 tokens, and 64 questions of 12.
Each side runs in a process of its own with 2 threads, in turn A B A B; medians are printed as one
JSON object, the last line of standard output. `--ours` and `--theirs` are one round of one side.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("GLASSGATE_HOME", "~/.cache/glassgate")).expanduser()
WEIGHTS = FOLDER / "models" / "minilm"
STORY = (  # each word is one token
    "the house stood near a small river and every morning people came with bread for old men who"
    " worked there until late at night when music could be heard far across open fields of grass"
)
SIZES = {"passages": 200, "questions": 12}  # tokens, the two at the ends included
THREADS = "2"
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def texts(num_tokens: int) -> list[str]:
    """64 of them, no two alike."""
    words = STORY.split()
    return [
        " ".join(words[(i * (n + 1) + n) % len(words)] for i in range(num_tokens - 2))
        for n in range(64)
    ]


def rates(encode: Callable[[list[str]], Any]) -> dict[str, float]:
    """Texts a second of each size, the best of five."""
    found = {}
    for name, size in SIZES.items():
        asked = texts(size)
        encode(asked)
        found[f"{name}_per_s"] = len(asked) / min(seconds(encode, asked) for _ in range(5))
    return found


def seconds(encode: Callable[[list[str]], Any], asked: list[str]) -> float:
    start = time.perf_counter()
    encode(asked)
    return time.perf_counter() - start


def ours() -> dict[str, float]:
    from model.weights import load_minilm

    network = load_minilm("minilm")
    for size in SIZES.values():
        assert {len(ids) for ids in network.tokenize(texts(size))} == {size}
    return rates(network.encode_texts)


def sentence_transformer() -> Any:
    """The same weights, with 2 threads."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    torch.set_num_threads(int(THREADS))
    reader = models.Transformer(str(WEIGHTS), max_seq_length=256)
    modules = [reader, models.Pooling(reader.get_embedding_dimension()), models.Normalize()]
    return SentenceTransformer(modules=modules, device="cpu")


def theirs() -> dict[str, float]:
    return rates(sentence_transformer().encode)


def one_round(python: str, side: str) -> dict[str, float]:
    variables = dict.fromkeys(VARIABLES, THREADS) | {"OPENBLAS_NUM_THREADS": "1"}
    said = subprocess.check_output([python, __file__, side], text=True, env=os.environ | variables)
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    return figures


def compare(peers: Path, rounds: int) -> dict[str, float]:
    """Medians of both sides; `vs_…` is ours over theirs. Without the peers ours alone."""
    sides = {"": (sys.executable, "--ours")}
    if peers.exists():
        sides["_sentence_transformers"] = (str(peers), "--theirs")
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for suffix, (python, side) in sides.items():
            for name, value in one_round(python, side).items():
                seen.setdefault(f"embed_{name}{suffix}", []).append(value)
    result = {name: statistics.median(values) for name, values in seen.items()}
    if peers.exists():
        for name, key in (("passages", ""), ("questions", "_questions")):
            theirs = result[f"embed_{name}_per_s_sentence_transformers"]
            result[f"vs_sentence_transformers{key}"] = result[f"embed_{name}_per_s"] / theirs
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--theirs", action="store_true")
    args = parser.parse_args()
    if args.ours or args.theirs:
        result = ours() if args.ours else theirs()
    else:
        result = compare(args.peers, args.rounds)
    print(json.dumps({name: round(value, 3) for name, value in sorted(result.items())}))


if __name__ == "__main__":
    main()
