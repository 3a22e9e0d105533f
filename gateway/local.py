"""The model server on this machine: a child that is started, watched and started again.

The child leaves when our end of its stdin closes, so it never outlives us, however we die. It runs
in a session of its own: Ctrl-C in a terminal reaches only us, and streams may finish.
"""

import asyncio
import contextlib
import logging
import socket
import sys
import time
from typing import Self

import msgspec

from gateway.config import Local, served_name

log = logging.getLogger("glassgate.local")

POLL_S = 0.1
PROBE_S = 1.0
STEADY_S = 30.0  # a child that lived for so long restarts without the grown back-off
START_S = 2.0  # the least that a start takes
LEAVE_S = 5.0


class LocalError(Exception):
    """The model server went away by itself before it was ever ready: it said why on stderr."""


class LocalModel:
    """Runs inside `async with`; `until_ready` waits for its first answer."""

    def __init__(self, config: Local) -> None:
        self.config = config
        self.is_ready = False
        self.num_restarts = 0
        self.context_length = 0  # tokens, of the chat model; 0 until it is known
        self._first = asyncio.Event()
        self._back_at = 0.0

    @property
    def retry_after_s(self) -> float:
        """A guess of when the child answers again."""
        return max(1.0, self._back_at - time.monotonic())

    async def __aenter__(self) -> Self:
        """Raises LocalError when somebody else has the port, who could be taken for our child."""
        try:
            socket.create_server(("127.0.0.1", self.config.port)).close()
        except OSError as error:
            where = f"port {self.config.port} of the model server: {error.strerror}"
            raise LocalError(f"{where}; choose another with --model-port") from error
        self._keeper = asyncio.create_task(self._keep_alive())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError, LocalError):
            await self._keeper

    async def until_ready(self) -> None:
        """Raises LocalError when the child leaves on its own or is not ready in time."""
        ready = asyncio.create_task(self._first.wait())
        await asyncio.wait(
            {self._keeper, ready},
            timeout=self.config.ready_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ready.cancel()
        if self._keeper.done():
            self._keeper.result()
        if not self._first.is_set():
            raise LocalError(f"the model server was not ready within {self.config.ready_s:g} s")

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
            self.num_restarts += 1
            self._back_at = time.monotonic() + delay + START_S
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
            prober.cancel()
            if process.returncode is None:
                await _end(process)

    async def _probe(self) -> None:
        while True:
            if models := await _models(self.config.port):
                break
            await asyncio.sleep(POLL_S)
        self.context_length = max(it.max_model_len or 0 for it in models)
        self.is_ready = True
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
    if config.profile:
        words += ["--runner", "emulated", "--profile", config.profile]
    for name, folder in config.loras.items():
        words += ["--lora-modules", f"{name}={folder}"]
    if config.strict:
        words.append("--strict")
    if config.threads:
        words += ["--threads", str(config.threads)]
    return words


class Model(msgspec.Struct):
    max_model_len: int | None = None


class Models(msgspec.Struct):
    data: list[Model]


async def _models(port: int) -> list[Model]:
    """What the child serves; nothing before it is done with loading. Asked by hand, so that this
    file needs no HTTP client."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError):
        return []
    is_loaded = b" 200 " in head.partition(b"\r\n")[0]
    return msgspec.json.decode(body, type=Models).data if is_loaded else []


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), LEAVE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
