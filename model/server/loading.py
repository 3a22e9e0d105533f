"""From names and numbers to what a server serves: pull what is missing, load, warm up."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import msgspec

from model import weights
from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.engine import Engine
from model.engine.grammar import Grammars
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams
from model.network.minilm import MiniLM
from model.protocol.templates import Limits, Renderer
from model.server.metrics import Metrics
from model.server.served import Served
from model.server.worker import Worker
from model.weights.checkpoint import Checkpoint

MAX_PROMPT_CHARS = 8 << 20  # of a rendered conversation: more than any body brings

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of the models. `engine` overrides fields of EngineConfig."""

    model: str
    embedder: str | None = None
    served_name: str | None = None
    max_model_len: int | None = None
    is_strict: bool = False
    engine: dict[str, Any] = {}


async def load(settings: Settings) -> Served:
    """Everything ready to answer; the worker's thread runs. Raises WeightsError."""
    started = time.monotonic()
    checkpoint = await asyncio.to_thread(_load_llama, settings.model)
    embedder = None
    if settings.embedder:
        embedder = await asyncio.to_thread(_load_minilm, settings.embedder)
    served = await asyncio.to_thread(assemble, settings, checkpoint, embedder)
    served.worker.start()
    logger.info("models loaded in %.1f s", time.monotonic() - started)
    return served


def assemble(settings: Settings, checkpoint: Checkpoint, embedder: MiniLM | None) -> Served:
    """The parts put together and warmed up; the worker still has to be started."""
    network = checkpoint.network
    length = min(settings.max_model_len or 1 << 30, network.config.context_length)
    config = EngineConfig(context_length=length, stop_ids=checkpoint.stop_ids, **settings.engine)
    runner = NetworkRunner(network, network.new_kv(config.num_blocks, config.block_size))
    engine = Engine(runner, checkpoint.tokenizer, config, WallClock())
    _warm_up(engine, embedder)
    name = settings.served_name or checkpoint.name
    metrics = Metrics(name, config)
    metrics.start_from(engine.stats())
    renderer = Renderer(Limits(max_chars=MAX_PROMPT_CHARS))
    renderer.check(checkpoint.chat_template or "")
    return Served(
        name=name,
        tokenizer=checkpoint.tokenizer,
        chat_template=checkpoint.chat_template,
        sampling=checkpoint.sampling,
        config=config,
        worker=Worker(engine, embedder, metrics),
        renderer=renderer,
        grammars=Grammars(checkpoint.tokenizer, checkpoint.stop_ids),
        metrics=metrics,
        created=int(time.time()),
        embedder_name=_short(settings.embedder),
        embedder=embedder,
        is_strict=settings.is_strict,
    )


def _warm_up(engine: Engine, embedder: MiniLM | None) -> None:
    """One prompt and one text, so that kernels are compiled before the first client waits."""
    engine.add(Request(id="warm-up", prompt_ids=[0] * 8, params=SamplingParams(max_tokens=3)))
    while engine.has_work:
        engine.step()
    engine.forget_prefixes()
    if embedder is not None:
        embedder.embed([[0] * 8])


def _load_llama(name: str) -> Checkpoint:
    return weights.load_llama(name)


def _load_minilm(name: str) -> MiniLM:
    return weights.load_minilm(name)


def _short(name: str | None) -> str | None:
    """The name under which a model at a path is served: its folder's or file's."""
    return None if name is None else Path(name).stem if "/" in name else name
