"""How fast training is, beside PyTorch on the same step, and what `glassgate train tiny` makes.

    python tests/bench/training.py [--rounds 3] [--peers PYTHON] [--no-tiny]

The step is described in training_step.py; each side runs it in a process of its own with 2 threads,
in turn A B A B, and medians count. The last line of standard output is one JSON object: sft_tok_s
and vs_torch_sft (ours by PyTorch's), peak_mb (ours), tiny_minutes and tiny_ppl. Without the peers
(`make bench-training` installs them) only our own figures are printed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEP = Path(__file__).with_name("training_step.py")
THREADS = {f"{name}_NUM_THREADS": "2" for name in ("OPENBLAS", "OMP", "MKL", "NUMBA")}


def step(python: str, who: str) -> dict[str, float]:
    env = {**os.environ, **THREADS, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([python, STEP, who], env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tiny() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        train = [sys.executable, "-m", "model", "train", "tiny", "--out", folder]
        done = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, check=True)
    perplexity = re.search(r'"perplexity": ([\d.]+)', done.stdout)
    minutes = re.search(r"in ([\d.]+) minutes", done.stdout)
    assert perplexity is not None
    assert minutes is not None
    return {"tiny_minutes": float(minutes[1]), "tiny_ppl": float(perplexity[1])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=str(ROOT / ".venv-bench" / "bin" / "python"))
    parser.add_argument("--no-tiny", action="store_true")
    options = parser.parse_args()
    sides = {"ours": sys.executable}
    if Path(options.peers).exists():
        sides["torch"] = options.peers
    rounds = []
    for number in range(options.rounds):
        rounds.append({who: step(python, who) for who, python in sides.items()})
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    result = {
        "sft_tok_s": statistics.median(it["ours"]["tok_s"] for it in rounds),
        "peak_mb": statistics.median(it["ours"]["peak_mb"] for it in rounds),
    }
    if "torch" in sides:
        ratios = (it["ours"]["tok_s"] / it["torch"]["tok_s"] for it in rounds)
        result["vs_torch_sft"] = round(statistics.median(ratios), 3)
    print(json.dumps(result if options.no_tiny else {**result, **tiny()}))


if __name__ == "__main__":
    main()
