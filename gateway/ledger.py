"""The ledger: one row for every request that was let in, exact to the token and the nano-dollar.

`begin` writes a line to the journal before anything is dispatched, `settle` another before the
client's last byte; neither waits for a database. A task moves settled rows to the store in batches;
what it has not moved yet is in the journal, so the queue is a file and its bound is in bytes.

Whoever starts finds the journals of processes that were killed and moves what they hold. A request
that had begun and not settled is written with outcome "killed" and charged for its prompt, counted
by its bound, and for no completion: that its prompt was sent is all that can be shown, and nobody
pays for an answer that he may not have got. `glassgate usage --killed` lists them, to compare with
the upstream's bill.
"""

import asyncio
import datetime
import itertools
import logging
import random
import time
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import sqlalchemy as sa

from gateway.call import Call
from gateway.config import Store as StoreConfig
from gateway.errors import Unavailable
from gateway.journal import Journal, Segment, abandoned
from gateway.money import MAX
from gateway.store.engine import Store
from gateway.store.rows import DAY_MS, now_ms
from gateway.store.usage import Row, post, prune, spent

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 << 10  # read and written in one transaction: some 150 rows
FLUSH_S = 0.25
RETRY_S = 1.0
PRUNE_S = 3600.0
MAX_BACKLOG = 1 << 30  # bytes of journal; beyond them new requests are refused
MAX_TEXT = 200  # characters of a name

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Row).decode


class Stats(NamedTuple):
    """For metrics. `failures`: transactions that the store refused; `torn`: unreadable lines."""

    backlog_bytes: int
    open_requests: int
    written_rows: int
    failures: int
    torn: int


class Ledger:
    """Made by `open`; `begin` and `settle` belong to the event loop's thread, `run` is a task."""

    def __init__(self, store: Store, config: StoreConfig) -> None:
        self._store = store
        self._retention_ms = config.retention_days * DAY_MS
        self._folder = Path(config.journal)
        self._journal = Journal(self._folder)
        self._open: dict[str, Segment] = {}
        self._count = itertools.count()  # rows of one millisecond keep their order
        self._late: list[Row] = []  # settled when no file would take the line
        self._lock = asyncio.Lock()
        self._written = self._failures = self._torn = 0

    @classmethod
    async def open(cls, store: Store, config: StoreConfig) -> Self:
        """Ready once the store has what killed processes left. Raises a store's error, OSError."""
        ledger = cls(store, config)
        for segments in abandoned(ledger._folder):
            await ledger._replay(segments)
        return ledger

    def begin(self, call: Call, cost: int) -> Row:
        """Before dispatch; `cost` [nano-dollars] is what the prompt's bound costs.

        Raises Unavailable when the journal cannot be written or holds more than it may.
        """
        if self._journal.backlog > MAX_BACKLOG:
            raise Unavailable("the ledger cannot keep up", code="ledger_full", retry_after_s=10)
        now = now_ms()
        row = Row(
            id=f"{now:012x}{next(self._count) & 0xFFFF:04x}{random.getrandbits(48):012x}",
            request_id=_text(call.id),
            started_at=now,
            route=call.route,
            key=call.principal.key_id,
            team=call.principal.team,
            family=call.family,
            release=call.release,
            prompt_tokens=call.bound_tokens,
            cost=cost,
        )
        try:
            segment = self._journal.append(_encode(row) + b"\n")
        except OSError as error:
            raise Unavailable(f"the journal cannot be written: {error.strerror}") from error
        segment.num_open += 1
        self._open[row.id] = segment
        return row

    def settle(self, row: Row, call: Call, cost: int) -> None:
        """After the last attempt, before the client's last byte. Once for each `begin`."""
        now = time.monotonic()
        usage, attempts = call.usage, call.attempts
        row.target = attempts[-1].target.name if attempts else ""
        row.attempts = len(attempts)
        row.prompt_tokens = usage.prompt
        row.cached_tokens = usage.cached
        row.completion_tokens = usage.completion
        row.usage_source = usage.source
        row.cost = min(cost, MAX)
        row.total_us = int((now - call.started) * 1e6)
        row.upstream_us = int(sum(attempt.latency for attempt in attempts) * 1e6)
        if attempts and attempts[-1].ttft is not None:
            wait = attempts[-1].started - call.started + attempts[-1].ttft
            row.first_token_us = int(wait * 1e6)
        row.finish, row.outcome = _text(call.finish), _text(call.outcome)
        try:
            self._journal.append(_encode(row) + b"\n")
        except OSError as error:
            log.error("the journal cannot be written, a row waits in memory: %s", error)
            self._late.append(row)
        self._open.pop(row.id).num_open -= 1

    async def run(self) -> None:
        """Moves settled rows to the store, and forgets old ones, until cancelled."""
        pruned = -PRUNE_S
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.flush()
                if time.monotonic() - pruned >= PRUNE_S:
                    await self._prune()
                    pruned = time.monotonic()
            except (*self._store.errors, OSError) as error:
                self._failures += 1
                log.error("the ledger cannot move its rows: %s", error)
                await asyncio.sleep(RETRY_S)

    async def flush(self) -> None:
        """Everything that is settled by now is in the store after it. Raises a store's error."""
        async with self._lock:
            for segment in list(self._journal.segments):
                await self._move(segment)
            if self._late:
                late = list(self._late)
                await self._store.write(post, late)
                del self._late[: len(late)]
            self._drop_finished()

    async def _move(self, segment: Segment) -> list[Row]:
        """Its rows to the store, from where it was left. What was begun in it."""
        begun = []
        end = segment.size  # by now: one that chases new rows would move them by ones and twos
        while segment.offset < end:
            chunk = await self._store.write(_post_chunk, segment)
            if not chunk.length:
                break
            segment.offset += chunk.length
            self._written += chunk.num_new
            self._torn += chunk.num_torn
            begun += chunk.begun
        return begun

    def _drop_finished(self) -> None:
        """Removes the segments that nobody needs any more; the last is still written to."""
        segments = self._journal.segments
        for segment in segments[:-1]:
            if segment.offset >= segment.size and not segment.num_open:
                segments.remove(segment)
                segment.remove()

    async def _replay(self, segments: list[Segment]) -> None:
        begun = [row for segment in segments for row in await self._move(segment)]
        for row in begun:
            row.outcome = "killed"
        # Those that were settled are there already, and stay as they are.
        num_killed = await self._store.write(post, begun)
        self._written += num_killed
        if num_killed:
            log.warning("a gateway was killed with %d requests in flight", num_killed)
        for segment in segments:
            segment.remove()

    async def _prune(self) -> None:
        oldest = f"{now_ms() - self._retention_ms:012x}"
        while await self._store.write(prune, oldest):
            pass

    async def spent(self, subject: str, since: datetime.date) -> int:
        """What the limiter's windows begin with [nano-dollars]. Raises Unavailable."""
        try:
            return await self._store.read(spent, subject, since)
        except self._store.errors as error:
            raise Unavailable("what was spent cannot be read") from error

    def stats(self) -> Stats:
        return Stats(
            self._journal.backlog, len(self._open), self._written, self._failures, self._torn
        )

    async def close(self) -> None:
        """Moves what it can; the rest is for who starts next."""
        try:
            await self.flush()
        except self._store.errors as error:
            log.error("the ledger leaves its journal behind: %s", error)
        for segment in self._journal.segments:
            is_done = segment.offset >= segment.size and not segment.num_open
            segment.remove() if is_done else segment.close()


class _Chunk(NamedTuple):
    length: int  # bytes
    num_new: int
    num_torn: int
    begun: list[Row]


def _post_chunk(connection: sa.Connection, segment: Segment) -> _Chunk:
    data = segment.read(CHUNK_BYTES)
    begun: list[Row] = []
    settled: list[Row] = []
    num_torn = 0
    for line in data.split(b"\n"):
        if not line:
            continue
        try:
            row = _decode(line)
        except msgspec.MsgspecError:
            num_torn += 1
            log.error("%s: unreadable line %r", segment.path, line[:MAX_TEXT])
        else:
            (begun if row.outcome == "open" else settled).append(row)
    return _Chunk(len(data), post(connection, settled), num_torn, begun)


def _text(name: str) -> str:
    """What both databases take: short, without NUL and lone surrogates."""
    return name[:MAX_TEXT] if name.isprintable() else ascii(name)[1 : MAX_TEXT + 1]
