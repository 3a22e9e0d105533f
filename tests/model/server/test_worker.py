"""The worker alone: over a fake network, with an engine that breaks, with texts in slices."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.runners import FakeRunner
from model.engine.sequence import Request, SamplingParams
from model.server.errors import Overloaded, ServerError
from model.server.metrics import Metrics
from model.server.slices import BUSY_SLICE_TOKENS, REST, SHORT_TOKENS, TURN_S, Job, Slices
from model.server.worker import MAX_QUEUED_TOKENS, Worker
from model.tokenizer import Tokenizer

CONFIG = EngineConfig(context_length=512, stop_ids=frozenset({257}))
PARAMS = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)


class Sums:
    """Embeds a text as the sum of its ids; remembers the slices."""

    def __init__(self):
        self.slices = []

    def steps(self, sequences):
        self.slices.append([len(ids) for ids in sequences])
        yield None
        yield np.array([[sum(ids)] for ids in sequences], np.float32)


def make_worker(embedder=None):
    tokenizer = Tokenizer.byte_level()
    runner = FakeRunner(tokenizer.vocab_size, CONFIG.num_blocks, CONFIG.block_size)
    engine = Engine(runner, tokenizer, CONFIG, WallClock())
    worker = Worker(engine, embedder, Metrics("m", CONFIG))
    worker.start()
    return worker


def request(name, **more):
    return Request(id=name, prompt_ids=[1, 2, 3], params=PARAMS, **more)


async def collect(worker, *requests):
    async with worker.answers(requests) as outputs:
        return [output async for output in outputs]


def test_each_caller_gets_its_own_outputs():
    async def run():
        worker = make_worker()
        made = await asyncio.gather(*(collect(worker, request(f"r{i}")) for i in range(20)))
        for i, outputs in enumerate(made):
            assert {output.request_id for output in outputs} == {f"r{i}"}
            assert sum(len(output.token_ids) for output in outputs) == 20
        assert worker.num_open == 0
        await asyncio.to_thread(worker.close)

    asyncio.run(run())


def test_one_wake_up_of_the_loop_for_all_that_a_step_brought():
    async def run():
        worker = make_worker()
        loop, wake_ups = asyncio.get_running_loop(), 0
        call_soon = loop.call_soon_threadsafe

        def counted(*args):
            nonlocal wake_ups
            wake_ups += 1
            return call_soon(*args)

        loop.call_soon_threadsafe = counted
        outputs = await collect(worker, *(request(f"r{i}") for i in range(16)))
        assert len(outputs) == 16 * 20
        assert wake_ups <= 20 + 16  # steps, and turns of commands at most
        await asyncio.to_thread(worker.close)

    asyncio.run(run())


def test_all_requests_of_a_call_are_taken_or_none():
    async def run():
        worker = make_worker()
        bad = Request(id="bad", prompt_ids=[10**6], params=PARAMS)
        with pytest.raises(Exception, match="vocabulary"):
            await collect(worker, request("good"), bad)
        assert not await worker.call(lambda: worker.engine.has_work)
        assert worker.num_open == 0
        await asyncio.to_thread(worker.close)

    asyncio.run(run())


def test_when_the_engine_breaks_nobody_waits_for_ever(monkeypatch):
    async def run():
        worker = make_worker(Sums())
        waiting = asyncio.create_task(worker.call(lambda: 1))
        assert await waiting == 1
        monkeypatch.setattr(worker.engine, "step", lambda: 1 / 0)
        asked = [collect(worker, request("r")), worker.embed([[1]] * 3000)]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, ServerError)
        assert worker.broken.is_set()
        with pytest.raises(ServerError):
            await worker.call(lambda: 1)

    asyncio.run(run())


def test_waiting_texts_are_bounded():
    async def run():
        worker = make_worker(Sums())
        most = asyncio.create_task(worker.embed([[1] * 256] * (MAX_QUEUED_TOKENS // 256)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await worker.embed([[1]])
        most.cancel()
        await asyncio.gather(most, return_exceptions=True)
        assert (await worker.embed([[1, 2]])).tolist() == [[3]]
        await asyncio.to_thread(worker.close)

    asyncio.run(run())


JOBS = st.lists(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1, max_size=8),
    max_size=6,
)


@given(JOBS, st.sets(st.integers(0, 5)))
def test_slices_are_bounded_and_every_text_gets_its_own_vector(jobs, abandoned):
    loop = asyncio.new_event_loop()
    embedder = Sums()
    slices = Slices(embedder)
    made = [Job(sequences, loop.create_future()) for sequences in jobs]
    for job in made:
        slices.add(job)
    for index in abandoned & set(range(len(made))):
        made[index].done.cancel()
    finished = []
    while slices.has_work:
        slices._rest_until = 0
        finished += slices.advance(is_busy=True)
    assert set(finished) == {job for job in made if not job.done.cancelled()}
    for job in finished:
        assert np.concatenate(job.vectors)[:, 0].tolist() == [sum(ids) for ids in job.sequences]
    for lengths in embedder.slices:
        assert sum(lengths[:-1]) < BUSY_SLICE_TOKENS
    loop.close()


class Slow(Sums):
    """Each step takes as long as a turn may."""

    now = 0.0

    def steps(self, sequences):
        for vectors in super().steps(sequences):
            self.now += TURN_S
            yield vectors


def make_slices():
    embedder = Slow()
    return embedder, Slices(embedder, lambda: embedder.now)


def test_a_question_goes_before_a_document_that_is_half_computed():
    loop = asyncio.new_event_loop()
    _, slices = make_slices()
    document = Job([[1] * SHORT_TOKENS] * 2, loop.create_future())
    question = Job([[1, 2]], loop.create_future())
    slices.add(document)
    assert slices.advance(is_busy=False) == []
    slices.add(question)
    assert [slices.advance(is_busy=False) for _ in range(3)] == [[], [question], [document]]
    assert not slices.has_work
    loop.close()


def test_beside_answers_a_share_of_the_time_and_all_of_it_without():
    loop = asyncio.new_event_loop()
    embedder, slices = make_slices()
    slices.add(Job([[1] * (SHORT_TOKENS + 1)] * 99, loop.create_future()))
    worked = 0.0
    while embedder.now < 50 * TURN_S:
        before = embedder.now
        slices.advance(is_busy=True)
        worked += embedder.now - before
        embedder.now += TURN_S / 4  # a step of the engine's
    assert worked <= embedder.now / (1 + REST) + TURN_S
    assert worked >= embedder.now / (2 + REST)
    before = embedder.now
    slices.advance(is_busy=False)
    assert embedder.now == before + TURN_S
    loop.close()
