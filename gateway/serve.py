"""The gateway as a process: alone, or with the model server as its watched child."""

import asyncio
import contextlib
import gc
import json
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop

from gateway.config import Server
from gateway.config_file import ConfigError, Loaded
from gateway.edge import Listener, is_loopback
from gateway.local import LocalModel

if TYPE_CHECKING:
    from gateway.state import State


class ServeError(Exception):
    """The gateway cannot start here."""


def serve(loaded: Loaded, with_local: bool, say: Callable[[str], None]) -> None:
    """Run until a signal ends it; `say` gets the last lines before the first request.

    Raises ConfigError, LocalError, ServeError, and Unavailable for a store that cannot be used.
    """
    # Before numpy is imported: its products here are short, and more threads of BLAS would spin on
    # cores that the model needs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    uvloop.run(_serve(loaded, with_local, say))


async def _serve(loaded: Loaded, with_local: bool, say: Callable[[str], None]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        listening = stack.enter_context(_bind(loaded.config.server))
        local = None
        if with_local and loaded.config.local is not None:
            local = await stack.enter_async_context(LocalModel(loaded.config.local))
            await asyncio.sleep(0)  # the child starts here, and loads while we import
        from gateway.state import open_state

        state = await stack.enter_async_context(open_state(loaded, local))
        await _listen(state, listening, say)


async def _listen(state: "State", listening: socket.socket, say: Callable[[str], None]) -> None:
    from gateway.app import App

    server = state.setup.config.server
    if state.mirror.keys.is_empty and not is_loopback(server.host):
        raise ConfigError("server.host: without any key the gateway stays on loopback")
    listener = Listener(App(state), server, state.drain, state.metrics.refuse)
    serving = asyncio.create_task(listener.serve(sockets=[listening]))
    opening = asyncio.create_task(_open(state, listening, say))
    try:
        await asyncio.wait({serving, opening}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
        await serving
    finally:
        opening.cancel()
        listener.should_exit = True
        await serving


async def _open(state: "State", listening: socket.socket, say: Callable[[str], None]) -> None:
    if state.local is not None:
        await state.local.until_ready()
    gc.collect()
    gc.freeze()  # what is here stays: no collection has to look at it again
    gc.set_threshold(10_000, 20, 50)  # requests make hardly any cycles
    for line in greeting(state, listening.getsockname()[1]):
        say(line)


def greeting(state: "State", port: int) -> list[str]:
    """Where the gateway is, what it serves, and what to try."""
    config = state.setup.config
    host = config.server.host if is_loopback(config.server.host) else socket.gethostname()
    url = f"http://{host}:{port}"
    served = [
        f"{family} → {state.mirror.labels.get(family, {}).get('production', 'nothing')}"
        for family in config.families
    ]
    body = {
        "model": next(iter(config.families), ""),
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "stream": True,
    }
    key = "" if state.mirror.keys.is_empty else " -H 'authorization: Bearer YOUR-KEY'"
    store = []
    if state.setup.loaded.origins.get("store.url") == "flag":  # by --emulate: no config names it
        store = [f"for its keys, usage and traces: export GLASSGATE_STORE_URL={config.store.url}"]
    return [
        f"Glassgate answers at {url}/v1",
        f"to see it work, open {url}/",
        f"releases: {', '.join(served)}",
        *store,
        f"try: curl {url}/v1/chat/completions{key} -H 'content-type: application/json'"
        f" -d '{json.dumps(body, separators=(',', ':'))}'",
    ]


def _bind(server: Server) -> socket.socket:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        listening = socket.create_server((server.host, server.port), family=family, backlog=2048)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {server.host}:{server.port}: {error.strerror};"
            " choose another with --port"
        ) from error
    # Connections inherit it: a chunk must not wait until the client has acknowledged the last one.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
