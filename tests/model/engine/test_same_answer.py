"""One prompt, one greedy answer, however the engine gets there.

Paths differ in the last bits of their sums, so two candidates closer than that may change places;
each test therefore states how close the two best candidates ever came.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine, Output
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams
from model.network.config import NetworkConfig
from model.network.llama import Llama, random_llama, reference_forward
from model.tokenizer import Tokenizer
from tests.model.network.quantised import llama

BYTES = Tokenizer.byte_level()
Run = Callable[..., dict[tuple[str, int], list[Output]]]
TINY = NetworkConfig(
    vocab_size=258, hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
    intermediate_size=48, context_length=256,
)  # fmt: skip
LENGTHS = (3, 17, 40, 64, 65, 9, 100, 31)


@pytest.fixture(scope="module")
def network() -> Llama:
    return random_llama(TINY, 5)


def engine_over(network: Llama, tokenizer: Tokenizer = BYTES, **changes: Any) -> Engine:
    config = EngineConfig(
        **{"context_length": network.config.context_length, "num_blocks": 128} | changes
    )
    kv = network.new_kv(config.num_blocks, config.block_size)
    return Engine(NetworkRunner(network, kv), tokenizer, config, WallClock())


def prompts_of(vocab_size: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(vocab_size, size=length).tolist() for length in LENGTHS]


def greedy(id: str, prompt: list[int], max_tokens: int, **params: Any) -> Request:  # noqa: A002
    settings = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, **params)
    return Request(id=id, prompt_ids=prompt, params=settings)


def answers(run: Run, engine: Engine, prompts: list[list[int]], num: int = 24) -> list[list[int]]:
    outputs = run(engine, *(greedy(str(i), prompt, num) for i, prompt in enumerate(prompts)))
    return [[t for o in outputs[str(i), 0] for t in o.token_ids] for i in range(len(prompts))]


def check_every_path(
    run: Run, network: Llama, tokenizer: Tokenizer, prompts: list[list[int]], num: int
) -> None:
    """`num` tokens of each answer."""
    alone, gap = [], np.inf
    for prompt in prompts:
        request = greedy("a", prompt, num, logprobs=2)
        outputs = run(engine_over(network, tokenizer), request)["a", 0]
        alone.append([t for output in outputs for t in output.token_ids])
        tops = [entry.top for output in outputs for entry in output.logprobs or ()]
        gap = min(gap, *(best[1] - second[1] for best, second in tops))
    assert gap > 1e-4, f"the best two candidates are {gap:.1e} apart: no fair test"
    longest = max(map(len, prompts)) + num
    paths = {
        "in a batch of 8": engine_over(network, tokenizer),
        "chunk 16": engine_over(network, tokenizer, prefill_chunk=16, max_num_batched_tokens=16),
        "preempted": engine_over(network, tokenizer, num_blocks=-(-longest // 16) + 1),
        "no prefix": engine_over(network, tokenizer, prefix_caching=False),
        "speculation": engine_over(network, tokenizer, num_draft_tokens=4),
    }
    for name, engine in paths.items():
        assert answers(run, engine, prompts, num) == alone, f"{name}; smallest gap {gap:.1e}"
    assert paths["preempted"].stats().preemptions > 0
    assert paths["speculation"].stats().accepted_tokens > 0
    assert paths["in a batch of 8"].stats().prefix_hits == 0
    warm = answers(run, paths["in a batch of 8"], prompts, num)
    assert warm == alone, f"warm prefix; smallest gap {gap:.1e}"
    assert paths["in a batch of 8"].stats().prefix_hits >= 48


def test_tiny_random_llama(network: Llama, run: Run) -> None:
    check_every_path(run, network, BYTES, prompts_of(258), 24)


@pytest.mark.weights
def test_smollm2(run: Run) -> None:
    weights = pytest.importorskip("model.weights")
    checkpoint = weights.load_llama("smollm2")
    text = "The history of the world is the history of a few people who had faith in themselves. "
    ids = checkpoint.tokenizer.encode(text * 8)
    lengths = (3, 12, 14, 15, 30, 9, 46, 13)  # many fill a block while they answer
    prompts = [ids[start : start + length] for start, length in enumerate(lengths)]
    check_every_path(run, checkpoint.network, checkpoint.tokenizer, prompts, 8)


def test_the_answer_is_the_one_of_the_plain_forward_pass(network: Llama, run: Run) -> None:
    context = prompts_of(258)[1][:]
    given = answers(run, engine_over(network), [context])[0]
    for token_id in given:
        assert token_id == reference_forward(network, context)[-1].argmax()
        context.append(token_id)


@pytest.mark.parametrize(("num_blocks", "budget"), [(128, 32), (10, 8)])
def test_logprobs_are_those_of_the_plain_forward_pass(
    network: Llama, run: Run, num_blocks: int, budget: int
) -> None:
    """In the second case the prompt is preempted when a part of it is scored."""
    prompt = prompts_of(258)[6]
    engine = engine_over(network, num_blocks=num_blocks, max_num_batched_tokens=budget)
    rival = greedy("rival", prompts_of(258)[2], 24)
    outputs = run(engine, rival, greedy("a", prompt, 24, logprobs=3, prompt_logprobs=2))["a", 0]
    assert engine.stats().preemptions == (num_blocks == 10)
    entries = list(outputs[0].prompt_logprobs or ())
    assert entries[0] is None
    assert len(entries) == len(prompt)
    assert all(output.prompt_logprobs is None for output in outputs[1:])
    entries = entries[1:] + [entry for output in outputs for entry in output.logprobs or ()]
    token_ids = prompt + [entry.token_id for entry in entries[len(prompt) - 1 :]]
    logits = reference_forward(network, token_ids).astype(np.float64)
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for row, token_id, entry in zip(exact, token_ids[1:], entries, strict=False):
        assert entry.logprob == pytest.approx(row[token_id], abs=1e-3)
        better = [(row > row[token_id] + bit).sum() for bit in (1e-3, -1e-3)]
        assert better[0] < entry.rank <= better[1]
        values = [value for _, value in entry.top]
        assert values == pytest.approx(np.sort(row)[::-1][: len(values)], abs=1e-3)
        assert values == pytest.approx(row[[i for i, _ in entry.top]], abs=1e-3)
    assert {len(entry.top) for entry in entries if entry} == {2, 3}


def test_guesses_change_no_sampled_token(network: Llama, run: Run) -> None:
    prompt = [7, 8, 9, 10] * 5

    def sampled(engine: Engine) -> list[int]:
        # among three tokens the same run often comes again
        params = SamplingParams(top_p=0.9, seed=3, max_tokens=100, allowed_token_ids=(7, 8, 9))
        outputs = run(engine, Request(id="a", prompt_ids=prompt, params=params))["a", 0]
        return [token_id for output in outputs for token_id in output.token_ids]

    guessing = engine_over(network, num_draft_tokens=5)
    assert sampled(guessing) == sampled(engine_over(network))
    stats = guessing.stats()
    assert 0 < stats.accepted_tokens < stats.draft_tokens
    assert len(stats.observed.iteration_tokens) == 100 - stats.accepted_tokens


def test_scoring_alone_makes_no_token(network: Llama, run: Run) -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    request = Request(id="a", prompt_ids=[5, 6, 7], params=params)
    (output,) = run(engine_over(network), request)["a", 0]
    assert (output.finish_reason, output.token_ids, output.text) == ("length", [], "")
    assert [entry and entry.top for entry in output.prompt_logprobs or ()] == [None, (), ()]


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F32"])
def test_compiled_kernels_are_batch_invariant(run: Run, kind: str) -> None:
    """Bit for bit: every sum is made in one order, whatever is computed beside it."""
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 96}
    network = llama(replace(TINY, **sizes), 11, kind)
    assert network.is_compiled
    rng = np.random.default_rng(1)
    prompt = rng.integers(258, size=12).tolist() * 4
    others = [rng.integers(258, size=length).tolist() for length in range(5, 85, 5)]

    def exactly(engine: Engine, *company: Request) -> list[Any]:
        asked = greedy("a", prompt, 30, logprobs=3)
        outputs = run(engine, *company[:7], asked, *company[7:])["a", 0]
        return [(e.token_id, e.logprob, e.top) for o in outputs for e in o.logprobs or ()]

    engine = engine_over(network)
    alone = exactly(engine)
    assert exactly(engine) == alone, "with a warm prefix"
    assert engine.stats().prefix_hits == 32
    company = [greedy(f"other {i}", it, 40) for i, it in enumerate(others)]
    assert exactly(engine_over(network), *company) == alone, "among 16 others"
    chunks = engine_over(network, prefill_chunk=7, max_num_batched_tokens=24)
    assert exactly(chunks, *company) == alone, "in chunks, among others"
    guessing = engine_over(network, num_draft_tokens=4)
    assert exactly(guessing) == alone, "with speculation"
    assert guessing.stats().draft_tokens > 0
