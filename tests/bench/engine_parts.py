"""What a step at batch 1 is made of, and what a long context costs.

    python tests/bench/engine_parts.py

The last line of standard output is one JSON object. overhead_share_b1: the part of a step of one
stream at a context of about 128 that is not its matrix products: norms, positions, attention,
waiting at barriers, sampling, scheduling. The products are timed alone, by the same threads over
the same weights. context_4096_vs_128: seconds a token at the longer context over the shorter.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

import json
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
from engine import prompt, seconds

from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams
from model.network.compiler import kernel
from model.network.kernel_parts import NUM_PANELS, call, share
from model.network.kernels import multiply
from model.network.llama import Llama
from model.network.panels import LANES, aligned
from model.weights import load_llama

TOKENS = 100  # a median of so many steps


@kernel(nogil=True)
def products(model, x, y, member):
    """Every matrix product of one token, one after the other, without meeting in between."""
    number, size, meet, barrier = member
    for layer in range(len(model.linears)):
        for record in model.linears[layer]:
            rows = share(record[NUM_PANELS], number, size)
            multiply(model, record, rows, x, y[:, rows[0] * LANES : rows[1] * LANES])
    rows = share(model.head[NUM_PANELS], number, size)
    multiply(model, model.head, rows, x, y[:, rows[0] * LANES : rows[1] * LANES])
    call(meet, (barrier, size))


def product_seconds(network: Llama) -> float:
    compiled, config = network._compiled, network.config
    assert compiled is not None
    x = aligned((1, 2 * config.intermediate_size), np.float32)
    y = aligned((1, config.vocab_size + LANES), np.float32)
    task = partial(products, compiled._model, x, y)
    compiled._crew.run(task)
    return median_seconds(lambda: compiled._crew.run(task), TOKENS)


def median_seconds(work: Callable[[], object], times: int) -> float:
    return statistics.median(seconds(work) for _ in range(times))


def token_seconds(engine: Engine, context: int) -> float:
    """Of a step of one stream whose context has this length and grows."""
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS + 1, ignore_eos=True)
    ids = prompt(context - TOKENS // 2)
    engine.add(Request(id="a", prompt_ids=ids, params=params))
    while not any(output.token_ids for output in engine.step()):
        pass
    return median_seconds(engine.step, TOKENS)


def main() -> None:
    checkpoint = load_llama("smollm2")
    config = EngineConfig(context_length=8192, prefix_caching=False)
    kv = checkpoint.network.new_kv(config.num_blocks, config.block_size)
    engine = Engine(
        NetworkRunner(checkpoint.network, kv), checkpoint.tokenizer, config, WallClock()
    )
    steps = [token_seconds(engine, 128) for _ in range(3)]
    bare = [product_seconds(checkpoint.network) for _ in range(3)]
    long = token_seconds(engine, 4096)
    figures = {
        "overhead_share_b1": 1 - min(bare) / min(steps),
        "step_b1_ms": 1e3 * min(steps),
        "products_b1_ms": 1e3 * min(bare),
        "context_4096_vs_128": long / min(steps),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
