"""Which requests are traced, and how their traces get to the store: in batches, off the road.

A trace that waits for the store is lost with the process, and one that finds no place to wait is
dropped and counted: unlike the ledger's rows, nobody is owed a trace.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from gateway.call import Call
from gateway.config import Traces
from gateway.store import Store
from gateway.store.rows import now_ms
from gateway.store.traces import Kept, post, prune
from gateway.tracing.otlp import Exporter
from gateway.tracing.spans import Trace, make_trace

log = logging.getLogger(__name__)

FLUSH_S = 0.5
PRUNE_S = 600.0
MAX_WAITING = 2000  # traces
HOUR_MS = 3_600_000

_encode = msgspec.json.Encoder().encode


class Recorder:
    """`take` belongs to the event loop's thread, `run` is a task. `counts`: kept, dropped, sent,
    unsent."""

    def __init__(self, store: Store, config: Traces) -> None:
        self.counts: Counter[str] = Counter()
        self._store = store
        self._config = config
        headers = {name: secret.reveal() for name, secret in config.otlp_headers.items()}
        self._exporter = Exporter(config.otlp, headers) if config.otlp else None
        self._waiting: list[tuple[str, Trace]] = []
        self._lock = asyncio.Lock()

    def take(self, call: Call, cost: int, row_id: str) -> None:
        """A call is settled, for `cost` nano-dollars; it is traced if its caller or chance said so,
        or if we failed it."""
        if not call.trace.is_sampled and call.status < 500:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.counts["dropped"] += 1
            return
        self._waiting.append((row_id, make_trace(call, cost, self._config.prompts)))

    async def run(self) -> None:
        """Writes what waits, and forgets what is old, until cancelled."""
        pruned = -PRUNE_S
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()
            if time.monotonic() - pruned >= PRUNE_S:
                await self._prune()
                pruned = time.monotonic()

    async def flush(self) -> None:
        """Everything that was taken by now is in the store after it, or lost and counted."""
        async with self._lock:
            if not self._waiting:
                return
            batch, self._waiting = self._waiting, []
            try:
                await self._store.write(post, [_row(row_id, trace) for row_id, trace in batch])
                self.counts["kept"] += len(batch)
            except self._store.errors as error:
                self.counts["dropped"] += len(batch)
                log.error("the store takes no traces: %s", error)
            await self._export([trace for _, trace in batch])

    async def _export(self, traces: Sequence[Trace]) -> None:
        if self._exporter is not None:
            is_taken = await self._exporter.send(traces)
            self.counts["sent" if is_taken else "unsent"] += len(traces)

    async def _prune(self) -> None:
        oldest = f"{now_ms() - int(self._config.keep_hours * HOUR_MS):012x}"
        try:
            while await self._store.write(prune, oldest, self._config.max_rows):
                pass
        except self._store.errors as error:
            log.error("the store forgets no traces: %s", error)

    async def aclose(self) -> None:
        await self.flush()
        if self._exporter is not None:
            await self._exporter.aclose()


def _row(row_id: str, trace: Trace) -> Kept:
    return Kept(row_id, trace.trace_id, trace.request_id, trace.key, _encode(trace))
