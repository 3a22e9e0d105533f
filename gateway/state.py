"""The parts that live as long as the process, opened in order and closed in reverse."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

from gateway import prompt_file, releases
from gateway.answer_cache import AnswerCache, Status
from gateway.auth import Authenticator
from gateway.config import Config
from gateway.config_file import ConfigError, Loaded, load
from gateway.errors import ShuttingDown
from gateway.ledger import Ledger
from gateway.limits import Admission, Limiter, MemoryLimiter
from gateway.local import LocalError, LocalModel
from gateway.metrics import Load, Metrics
from gateway.money import NANO
from gateway.reply import Exchange
from gateway.retrieval.embedder import make_embedder
from gateway.retrieval.index import Searcher
from gateway.retrieval.ingest import Ingester
from gateway.routing.balance import Pool
from gateway.setup import Setup, make_setup
from gateway.store import Store
from gateway.store.mirror import Mirror
from gateway.store.seeds import config_keys, plant
from gateway.tracing.recorder import Recorder
from gateway.upstream import Client
from model.protocol.templates import Renderer

log = logging.getLogger("glassgate")

FIXED = (
    "server",
    "local",
    "store",
    "redis",
    "keys",
    "breaker",
    "answer_cache",
    "metrics",
    "traces",
)  # sections that need a restart
WATCH_S = 0.5
POLL_S = 0.02
SETTLE_S = 2.0  # for requests that were told that they end


class State:
    """What requests share. Made by `open_state`."""

    def __init__(
        self,
        setup: Setup,
        store: Store,
        mirror: Mirror,
        ledger: Ledger,
        local: LocalModel | None,
    ) -> None:
        self.setup = setup
        self.store = store
        self.mirror = mirror
        self.metrics = Metrics(setup.config.metrics.tenants)
        self.client = Client()
        self.pool = Pool(self.client, setup.config.breaker)
        self.auth = Authenticator(mirror, config_keys(setup.config))
        self.ledger = ledger
        limiter = make_limiter(setup.config, ledger)
        self.admission = Admission(limiter, observe=self.metrics.waited)
        self.searcher = Searcher(store, self.metrics)
        self.searcher.embedder = make_embedder(setup, self.pool)
        self.ingester = Ingester(self.searcher, self.metrics)
        self.renderer = Renderer()
        self.answers = make_answers(setup.config)
        self.traces = Recorder(store, setup.config.traces)
        self.local = local
        self.exchanges: set[Exchange] = set()
        self._watch_parts()
        self.is_draining = False  # not ready any more
        self.is_closed = False  # takes no new request

    def _watch_parts(self) -> None:
        """Numbers that the parts keep themselves, read when Prometheus asks."""
        metrics, ledger, admission = self.metrics, self.ledger, self.admission
        metrics.in_flight.set_function(lambda: len(self.exchanges))
        metrics.journal_bytes.set_function(lambda: ledger.stats().backlog_bytes)
        metrics.ledger_open.set_function(lambda: ledger.stats().open_requests)
        metrics.ledger_rows.set_function(lambda: ledger.stats().written_rows)
        metrics.ledger_torn.set_function(lambda: ledger.stats().torn)
        metrics.upstreams = self._loads
        metrics.ledger_failures.set_function(lambda: ledger.stats().failures)
        metrics.reservations.set_function(lambda: admission.num_held)
        metrics.leases_lapsed.set_function(lambda: admission.num_lapsed)
        for result in ("kept", "dropped", "sent", "unsent"):
            metrics.traces.set_function(partial(self.traces.counts.__getitem__, result), result)
        answers = self.answers
        metrics.cache_bytes.set_function(lambda: answers.num_bytes)
        metrics.cache_evictions.set_function(lambda: answers.num_evicted)
        metrics.cache_saved_tokens.set_function(lambda: answers.saved_tokens)
        metrics.cache_saved_cost.set_function(lambda: answers.saved_cost / NANO)
        for status in get_args(Status):
            count = partial(answers.counts.__getitem__, status)
            metrics.cache_look_ups.set_function(count, status)
        if local := self.local:
            metrics.local_ready.set_function(lambda: local.is_ready)
            metrics.local_restarts.set_function(lambda: local.num_restarts)
        for name in (name for name, it in self.setup.config.families.items() if it.queue):
            metrics.waiting.set_function(partial(admission.num_waiting, name), name)

    def _loads(self) -> Iterator[Load]:
        for name, target in self.setup.targets.items():
            yield name, self.pool.in_flight(target), self.pool.states(target)

    @property
    def is_ready(self) -> bool:
        """May a load balancer send requests here?"""
        return not self.is_draining and (self.local is None or self.local.is_ready)

    async def reload(self) -> None:
        """Take the changed file, or keep everything and raise ConfigError."""
        loaded = load(self.setup.loaded.path, self.setup.loaded.flags)
        old, new = self.setup.config, loaded.config
        for section in FIXED:
            if getattr(old, section) != getattr(new, section):
                raise ConfigError(f"{section}: a change needs a restart")
        setup = make_setup(loaded)
        if names := prompt_file.changed(self.setup.prompts, setup.prompts):
            raise ConfigError(f"prompts: {names[0]} is immutable, a change needs a new version")
        if names := releases.changed(self.setup, setup):
            raise ConfigError(f"releases.{names[0]}: is immutable, a change needs a new name")
        self.setup = setup
        self.searcher.embedder = make_embedder(self.setup, self.pool)
        # What the file adds and the store does not know; what moved stays where it is.
        await self.store.write(plant, new)

    async def watch_file(self) -> None:
        """Reload when the file or a prompt changes; what is wrong with it is logged and counted."""
        seen = self._stamps()
        while True:
            await asyncio.sleep(WATCH_S)
            if (now := self._stamps()) == seen:
                continue
            seen = now
            try:
                await self.reload()
            except ConfigError as error:
                self.metrics.reloads.labels("refused").inc()
                log.error("the changed config is refused: %s", error)
            else:
                self.metrics.reloads.labels("taken").inc()
                log.info("the changed config is in use")

    def _stamps(self) -> list[object]:
        """Of the config file and of all prompts: they differ when one of them changed."""
        folder = Path(self.setup.config.prompts.folder)
        return [
            _stamp(self.setup.loaded.path),
            *((it, _stamp(it)) for it in prompt_file.paths(folder)),
        ]

    async def drain(self, is_forced: Callable[[], bool]) -> None:
        """Stop being ready, let streams finish within the grace period, end the rest as said."""
        server = self.setup.config.server
        self.is_draining = True
        await _until(is_forced, server.drain_delay_s)
        self.is_closed = True
        await _until(lambda: is_forced() or not self.exchanges, server.drain_s)
        for exchange in list(self.exchanges):
            exchange.abort(ShuttingDown("the gateway is shutting down", retry_after_s=5))
        await _until(lambda: not self.exchanges, SETTLE_S)


@contextlib.asynccontextmanager
async def open_state(loaded: Loaded, local: LocalModel | None = None) -> AsyncIterator[State]:
    """`local`: the model server that runs here, if one does."""
    setup = make_setup(loaded)
    store = Store.open(loaded.config.store.url)
    await store.write(plant, loaded.config)
    ledger = await Ledger.open(store, loaded.config.store)
    state = State(setup, store, await Mirror.open(store), ledger, local)
    work = (
        state.watch_file(),
        state.mirror.run(),
        ledger.run(),
        state.ingester.run(),
        state.traces.run(),
        bring_corpora(state),
    )
    tasks = [asyncio.create_task(it) for it in work]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield state
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await state.answers.aclose()
        state.renderer.close()
        await state.pool.close()
        await state.client.close()
        await state.admission.aclose()
        await ledger.close()
        await state.traces.aclose()
        store.close()


def _report(task: asyncio.Task[None]) -> None:
    """Work in the background that ends by an error would otherwise be missed by nobody."""
    if not task.cancelled() and (error := task.exception()):
        log.error("work in the background has ended", exc_info=error)


async def bring_corpora(state: State) -> None:
    """What the config's indexes are to know, in the background, once the embedder is up."""
    if state.local is not None:
        try:
            await state.local.until_ready()
        except LocalError:
            return  # `serve` says why
    for index in state.setup.config.indexes.values():
        if index.corpus and state.searcher.embedder is not None:
            await state.ingester.bring(index)


def make_answers(config: Config) -> AnswerCache:
    """In this process alone, or also in the Redis that all gateways share."""
    max_bytes = config.answer_cache.max_bytes
    url = config.answer_cache.redis_url or config.redis.url
    if not url:
        return AnswerCache(max_bytes)
    from gateway.answer_redis import RedisAnswers  # an extra: redis-py
    from gateway.redis_link import RedisLink

    link = RedisLink.open(url, config.redis.timeout_ms / 1000)
    return AnswerCache(max_bytes, shared=RedisAnswers(link))


def make_limiter(config: Config, ledger: Ledger) -> Limiter:
    """Counts in this process, or in the Redis that all gateways share."""
    if not config.redis.url:
        return MemoryLimiter(seed=ledger.spent)
    from gateway.limits.redis import RedisLimiter  # an extra: redis-py
    from gateway.redis_link import RedisLink

    link = RedisLink.open(config.redis.url, config.redis.timeout_ms / 1000)
    return RedisLimiter(link, local_share=1 / config.redis.gateways, seed=ledger.spent)


async def _until(is_over: Callable[[], bool], seconds: float) -> None:
    """Wait for it, at most so long. Polled: a drain is no place for one more event to forget."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        if is_over() or loop.time() >= end:
            return
        await asyncio.sleep(POLL_S)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
