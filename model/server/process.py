"""The life of a model server's process: listen, load, serve, drain, leave.

It listens before it loads: until the models are there every route answers 503, so whoever watches
needs to know nothing but that. SIGTERM and Ctrl-C stop new connections and let streams finish.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import uvicorn

from model.protocol.templates import TemplateError
from model.server.app import State, make_app
from model.server.loading import Settings, load
from model.weights.errors import WeightsError

BACKLOG = 1024
KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that they close them first
CRASHED = 70  # exit statuses of sysexits.h: internal error, unusable input
UNUSABLE = 65

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Connections inherit it, and asyncio sets it only where the protocol's number is given: else
    # the second packet of a reply waits 40 ms for the client to acknowledge the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Leave(NamedTuple):
    """When and how a server leaves."""

    drain_s: int  # what answers under way get after a signal
    parent_pipe: bool  # whether the end of standard input ends it


def serve(listener: socket.socket, settings: Settings, leave: Leave) -> int:
    """Serve until told to leave; the exit status."""
    start_log()
    return asyncio.run(Process(listener, settings, leave).run())


class Server(uvicorn.Server):
    """Drains at the first signal, as uvicorn does; but then leaves with a status of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class Process:
    """One server and what may end it: a signal, its parent, its engine, models that do not load."""

    def __init__(self, listener: socket.socket, settings: Settings, leave: Leave) -> None:
        self.listener, self.settings, self.leave = listener, settings, leave
        self.state = State()
        self.status = 0
        config = uvicorn.Config(
            make_app(self.state),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=leave.drain_s,
        )
        self.server = Server(config)

    async def run(self) -> int:
        if self.leave.parent_pipe:
            self._watch_parent(asyncio.get_running_loop())
        loading = asyncio.create_task(self._load())
        await self.server.serve(sockets=[self.listener])
        if self.state.served is None:
            os._exit(self.status)  # a thread that loads or downloads cannot be told to stop
        loading.cancel()
        await asyncio.to_thread(self.state.served.close)
        return self.status

    async def _load(self) -> None:
        host, port = self.listener.getsockname()[:2]
        logger.info("listening on %s port %d, loading", host, port)
        try:
            served = await load(self.settings)
        except (WeightsError, TemplateError, OSError, ValueError) as error:
            logger.error("cannot serve: %s: %s", type(error).__name__, error)
            self._leave(UNUSABLE)
            return
        except Exception:  # this is a task: its error would end nothing
            logger.exception("cannot serve")
            self._leave(CRASHED)
            return
        self.state.served = served
        names = [name for name in (served.name, served.embedder_name) if name]
        logger.info("ready: %s at http://%s:%d/v1", " and ".join(names), host, port)
        await served.worker.broken.wait()
        self._leave(CRASHED)

    def _leave(self, status: int) -> None:
        self.status = status
        self.server.should_exit = True

    def _watch_parent(self, loop: asyncio.AbstractEventLoop) -> None:
        def wait_for_end() -> None:
            while os.read(0, 4096):
                pass
            self.server.force_exit = True  # nobody is left to drain for
            loop.call_soon_threadsafe(self._leave, 0)

        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()


class LogLine(logging.Formatter):
    """One JSON object a line. Prompts and answers are never logged."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "name": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def start_log() -> None:
    """Everything from INFO on, to standard error; uvicorn only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
