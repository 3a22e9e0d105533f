"""How fast the engine is, beside llama.cpp and transformers on the same weights.

    python tests/bench/engine.py [--rounds 3] [--batches 1,4,8,16,32] [--peers PYTHON]

Each engine runs in a process of its own with 2 threads, in turn A B A B; medians are printed as one
JSON object, the last line of standard output. decode_bN: tokens a second of N greedy streams,
context 64 to 128, sampling included; http_vs_inprocess_16 compares whole answers of 16 streams.
prefill_512: prompt tokens a second, logits of the last position only. vs_NAME_X: ours over the
peer's; a figure without NAME is ours. The rest is explained in the files that measure it:
`engine_served` (HTTP, memory), `engine_parts` (shares of a step), `embedding` (the encoder).
The peers are pinned in requirements/bench.txt (`make bench-engine`); without them only our own
figures are printed. A process that takes too long is ended and its figures are left out.
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

from embedding import compare

HERE = Path(__file__).parent
CONTEXT, ANSWER, PREFILL = 64, 64, 512
STREAMS, LONG_ANSWER = 16, 128  # of the comparison with HTTP
THREADS = "2"
PATIENCE_S = {"ours": 90, "served": 90, "parts": 120, "llamacpp": 90, "transformers": 150}
TRANSFORMERS_BATCHES = {1, 16, 32}  # it is slow
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

    def together(streams: int) -> float:
        """Tokens a second, prompts included."""
        for number in range(streams):
            add(CONTEXT, number, LONG_ANSWER)
        return streams * LONG_ANSWER / seconds(lambda: drain(lambda: engine.has_work))

    prefill()
    result = {"load_s": time.perf_counter() - started, "prefill_512": prefill()}
    result |= {f"decode_b{n}": decode(n) for n in batches}
    return result | {"inprocess_b16": max(together(STREAMS) for _ in range(2))}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def round_of(name: str, command: list[str]) -> dict[str, float]:
    """Run one engine once; the last line it prints is its figures. Empty if it takes too long."""
    variables = dict.fromkeys(VARIABLES, THREADS) | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        said = subprocess.check_output(
            command, text=True, env=os.environ | variables, timeout=PATIENCE_S[name]
        )
    except subprocess.TimeoutExpired:
        print(f"{name} took more than {PATIENCE_S[name]} s", file=sys.stderr)
        return {}
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    print(name, figures, file=sys.stderr)
    return figures


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    names = {name for one in rounds for name in one}
    return {name: statistics.median(one[name] for one in rounds if name in one) for name in names}


def commands(batches: list[int], peers: Path) -> dict[str, list[str]]:
    """Who takes part, in the order of a round."""
    numbers, few = (
        ",".join(map(str, some)) for some in (batches, sorted({*batches} & TRANSFORMERS_BATCHES))
    )
    script = str(HERE / "engine_peers.py")
    found = {"ours": [sys.executable, __file__, "--ours", "--batches", numbers]}
    found["served"] = [sys.executable, str(HERE / "engine_served.py")]
    if peers.exists():
        found["llamacpp"] = [str(peers), script, "llamacpp", numbers]
        found["transformers"] = [str(peers), script, "transformers", few]
    return found


def ratios(seen: dict[str, dict[str, float]]) -> dict[str, float]:
    """Every figure by its name, and ours over each peer's, of what was measured in time."""
    own = seen["ours"] | seen["served"]
    result = dict(own)
    for name in ("llamacpp", "transformers"):
        for key, value in seen.get(name, {}).items():
            result[f"{key}_{name}"] = value
            if key in own:
                result[f"vs_{name}_{key}"] = own[key] / value
    prefills = [value for name, value in result.items() if name.startswith("vs_") and "512" in name]
    if prefills:
        result["vs_best_prefill_512"] = min(prefills)
    if {"http_b16", "inprocess_b16"} <= own.keys():
        result["http_vs_inprocess_16"] = own["http_b16"] / own["inprocess_b16"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,4,8,16,32")
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--ours", action="store_true", help="one round of our own, and no more")
    args = parser.parse_args()
    batches = [int(number) for number in args.batches.split(",")]
    if args.ours:
        print(json.dumps(ours(batches)))
        return
    everyone = commands(batches, args.peers)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in everyone}
    for _ in range(args.rounds):
        for name, command in everyone.items():
            rounds[name].append(round_of(name, command))
    result = ratios({name: medians(figures) for name, figures in rounds.items()})
    result |= round_of("parts", [sys.executable, str(HERE / "engine_parts.py")])
    result |= compare(args.peers, args.rounds)
    print(json.dumps({name: round(value, 3) for name, value in sorted(result.items())}))


if __name__ == "__main__":
    main()
