"""A model server on a free port of this machine, in a thread, with random weights."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from model.server.app import State, make_app
from model.server.loading import Settings, load
from model.server.served import Served

MODEL = "tiny-random"


@dataclass
class Running:
    """A server and a client to it."""

    url: str
    state: State
    http: httpx.Client

    @property
    def served(self) -> Served:
        assert self.state.served is not None
        return self.state.served

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series of /metrics."""
        labels = {"model_name": self.served.name, "engine": "0"} | labels
        value = self.served.metrics.registry.get_sample_value(f"vllm:{name}", labels)
        assert value is not None, name
        return value

    def wait_for(self, name: str, value: float) -> None:
        """Until the gauge has the value; the test's own time limit is the patience."""
        deadline = time.monotonic() + 20
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} stays {self.metric(name)}"
            time.sleep(0.005)


@contextlib.contextmanager
def running(**settings: object) -> Iterator[Running]:
    settings = {"model": MODEL, "embedder": MODEL} | settings
    listener = socket.create_server(("127.0.0.1", 0))
    state = State()
    config = uvicorn.Config(make_app(state), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def run() -> None:
        state.served = await load(Settings(**settings))
        ready.set()
        await server.serve(sockets=[listener])
        await asyncio.to_thread(state.served.close)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(60)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=30) as http:
        yield Running(url, state, http)
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """Shared: leave it idle."""
    with running() as one:
        yield one
