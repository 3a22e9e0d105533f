"""How fast the engine is, beside llama.cpp and transformers on the same weights.

    python tests/bench/engine.py [--rounds 3] [--batches 1,4,8,16,32] [--peers PYTHON]

Each engine runs in a process of its own with 2 threads, in turn A B A B; medians are printed as one
JSON object, the last line of standard output. decode_bN: tokens a second of N greedy streams,
context 64 to 128, sampling included. prefill_512: prompt tokens a second, logits of the last
position only. The peers are pinned in requirements/bench.txt (`make bench-engine`); without them
only our own figures are printed.
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

PEERS = Path(__file__).with_name("engine_peers.py")
CONTEXT, ANSWER, PREFILL = 64, 64, 512
THREADS = "2"
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


def prompt(length: int, number: int = 0) -> list[int]:
    """Token ids that no other prompt begins with, so that no prefix is shared."""
    return [1000 + (number * 7919 + i * 31) % 40_000 for i in range(length)]


def ours(batches: list[int]) -> dict[str, float]:
    """One round of our engine in this process."""
    started = time.perf_counter()
    from model.engine.clock import WallClock
    from model.engine.config import EngineConfig
    from model.engine.engine import Engine
    from model.engine.runners import NetworkRunner
    from model.engine.sequence import Request, SamplingParams
    from model.weights import load_llama

    checkpoint = load_llama("smollm2")
    config = EngineConfig(context_length=8192, prefix_caching=False)
    kv = checkpoint.network.new_kv(config.num_blocks, config.block_size)
    engine = Engine(
        NetworkRunner(checkpoint.network, kv), checkpoint.tokenizer, config, WallClock()
    )

    def add(length: int, number: int, max_tokens: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        engine.add(Request(id=f"{number}", prompt_ids=prompt(length, number), params=params))

    def prefill() -> float:
        add(PREFILL, 0, 1)
        return PREFILL / seconds(lambda: drain(lambda: engine.has_work))

    def drain(more: Callable[[], bool]) -> int:
        tokens = 0
        while more():
            tokens += sum(len(output.token_ids) for output in engine.step())
        return tokens

    def decode(streams: int) -> float:
        for number in range(streams):
            add(CONTEXT, number, ANSWER)
        begun: set[str] = set()
        while len(begun) < streams:
            begun |= {output.request_id for output in engine.step() if output.token_ids}
        start = time.perf_counter()
        tokens = drain(lambda: engine.has_work)
        return tokens / (time.perf_counter() - start)

    prefill()
    result = {"load_s": time.perf_counter() - started, "prefill_512": prefill()}
    return result | {f"decode_b{n}": decode(n) for n in batches}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def round_of(command: list[str]) -> dict[str, float]:
    """Run one engine once; the last line it prints is its figures."""
    variables = dict.fromkeys(VARIABLES, THREADS) | {"OPENBLAS_NUM_THREADS": "1"}
    said = subprocess.check_output(command, text=True, env=os.environ | variables)
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    return figures


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,4,8,16,32")
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--ours", action="store_true", help="one round of our own, and no more")
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(ours([int(n) for n in args.batches.split(",")])))
        return
    commands = {"ours": [sys.executable, __file__, "--ours", "--batches", args.batches]}
    if args.peers.exists():
        for name in ("llamacpp", "transformers"):
            commands[name] = [str(args.peers), str(PEERS), name, args.batches]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            rounds[name].append(round_of(command))
    seen = {name: medians(figures) for name, figures in rounds.items()}
    result = dict(seen["ours"])
    for name in seen.keys() - {"ours"}:
        result |= {f"{key}_{name}": value for key, value in seen[name].items()}
        result |= {
            f"vs_{name}_{key}": seen["ours"][key] / value for key, value in seen[name].items()
        }
    print(json.dumps({name: round(value, 3) for name, value in sorted(result.items())}))


if __name__ == "__main__":
    main()
