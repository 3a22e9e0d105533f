"""The model server on this machine: a child that is started, watched and started again.

The child leaves when our end of its stdin closes, so it never outlives us, however we die. It runs
in a session of its own: Ctrl-C in a terminal reaches only us, and streams may finish.
"""

import asyncio
import contextlib
import logging
import sys
import time

from gateway.config import Local, served_name
from gateway.metrics import Metrics
from gateway.upstream import Client, Target

log = logging.getLogger("glassgate.local")

POLL_S = 0.1
PROBE_S = 1.0
STEADY_S = 30.0  # a child that was ready for so long restarts without the grown back-off
LEAVE_S = 5.0


class LocalError(Exception):
    """The model server went away by itself before it was ever ready: it said why on stderr."""


class LocalModel:
    """`start` returns once the child answers; from then on it is kept alive until `close`."""

    def __init__(self, config: Local, client: Client, metrics: Metrics) -> None:
        self.config = config
        self.is_ready = False
        self._client = client
        self._metrics = metrics
        self._target = Target(name="local", model=config.model, base_urls=(base_url(config),))
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._back_at = 0.0

    @property
    def retry_after_s(self) -> float:
        """A guess of when the child answers again."""
        return max(1.0, self._back_at - time.monotonic())

    async def start(self) -> None:
        """Raises LocalError when the child leaves on its own or is not ready in time."""
        self._watcher = asyncio.create_task(self._keep_alive())
        ready = asyncio.create_task(self._first.wait())
        done, _ = await asyncio.wait(
            {self._watcher, ready},
            timeout=self.config.ready_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ready.cancel()
        if self._watcher in done:
            self._watcher.result()
        if not self.is_ready:
            await self.close()
            raise LocalError(f"the model server was not ready within {self.config.ready_s:g} s")

    async def close(self) -> None:
        self.is_ready = False
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError, LocalError):
                await self._watcher

    async def _keep_alive(self) -> None:
        delay = self.config.backoff_s
        while True:
            started = time.monotonic()
            code = await self._live_once()
            if not self._first.is_set() and code >= 0:
                raise LocalError(f"the model server left with status {code}")
            if time.monotonic() - started > STEADY_S:
                delay = self.config.backoff_s
            log.warning("the model server left with status %d, again in %.2f s", code, delay)
            self._metrics.local_restarts.inc()
            self._back_at = time.monotonic() + delay + 2
            await asyncio.sleep(delay)
            delay = min(2 * delay, self.config.backoff_max_s)

    async def _live_once(self) -> int:
        """One life of the child, to its exit status (negative: the signal that killed it)."""
        process = await asyncio.create_subprocess_exec(
            *command(self.config), stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        prober = asyncio.create_task(self._probe())
        try:
            return await process.wait()
        finally:
            self.is_ready = False
            self._metrics.local_ready.set(0)
            prober.cancel()
            if process.returncode is None:
                await _end(process)

    async def _probe(self) -> None:
        url = base_url(self.config)
        while True:
            if await self._client.is_alive(self._target, url, PROBE_S):
                break
            await asyncio.sleep(POLL_S)
        self.is_ready = True
        self._metrics.local_ready.set(1)
        self._first.set()


def base_url(config: Local) -> str:
    return f"http://127.0.0.1:{config.port}/v1"


def command(config: Local) -> list[str]:
    """The command line of the child."""
    words = [sys.executable, "-m", "model", "serve", "--host", "127.0.0.1", "--parent-pipe"]
    words += ["--port", str(config.port), "--model", config.model]
    words += ["--served-model-name", served_name(config.model)]
    if config.embedder:
        words += ["--embedder", config.embedder]
    if config.strict:
        words.append("--strict")
    if config.threads:
        words += ["--threads", str(config.threads)]
    return words


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), LEAVE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
