"""`glassgate chat`: the gateway in a terminal. It is a client like any other, over HTTP.

Where no gateway answers it starts one of its own, which leaves with it. Ctrl-C ends an answer,
Ctrl-D the talk.
"""

# ruff: noqa: S603 - the only program that is started is this Python

import contextlib
import http.client
import json
import readline  # noqa: F401 - gives input() its line editing and history
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from model.protocol.errors import read_error
from model.protocol.sse import EventReader

START_S = 180.0
LOG = Path("var/chat.log")


class Gone(Exception):
    """There is no gateway, or it said no: the message tells which."""


class Client:
    """`url` is where the gateway is, without /v1."""

    def __init__(self, url: str, key: str) -> None:
        self._at = urlsplit(url)
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def is_ready(self) -> bool:
        with contextlib.suppress(Gone), self._ask("GET", "/health/ready"):
            return True
        return False

    def first_model(self) -> str:
        with self._ask("GET", "/v1/models") as reply:
            return str(json.loads(reply.read())["data"][0]["id"])

    def answer(self, model: str, messages: list[dict[str, str]]) -> Iterator[str]:
        """The pieces of the answer's text. Raises Gone."""
        body = {"model": model, "messages": messages, "stream": True}
        reader = EventReader()
        with self._ask("POST", "/v1/chat/completions", body) as reply:
            while chunk := reply.read1(65536):
                for event in reader.feed(chunk):
                    if event.data != b"[DONE]":
                        yield _text(event.data)

    @contextlib.contextmanager
    def _ask(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._at.scheme == "https" else None
        connection = (kind or http.client.HTTPConnection)(self._at.netloc)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, self._headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise Gone(read_error(reply.status, reply.read()).message)
            yield reply
        except (OSError, http.client.HTTPException) as error:
            raise Gone(f"the gateway does not answer: {error}") from error
        finally:
            connection.close()


def _text(data: bytes) -> str:
    event = json.loads(data)
    if "error" in event:
        raise Gone(event["error"]["message"])
    choices = event.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


@contextlib.contextmanager
def gateway(client: Client, flags: list[str]) -> Iterator[None]:
    """One that answers: who is there already, or `glassgate serve` as a child."""
    if client.is_ready():
        yield
        return
    LOG.parent.mkdir(parents=True, exist_ok=True)
    click.echo(f"starting a gateway, its log is in {LOG}", err=True)
    words = [sys.executable, "-m", "gateway", "serve", *flags]
    with LOG.open("wb") as log:
        # A session of its own: Ctrl-C here must end an answer and not the gateway.
        child = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + START_S
        while not client.is_ready():
            if child.poll() is not None or time.monotonic() > end:
                raise Gone(f"the gateway did not start:\n{LOG.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        child.terminate()
        child.wait()


def talk(client: Client, model: str) -> None:
    """Read, answer, remember, until Ctrl-D."""
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("> ")
        except KeyboardInterrupt:
            click.echo()
            continue
        except EOFError:
            click.echo()
            return
        if not question.strip():
            continue
        messages.append({"role": "user", "content": question})
        said: list[str] = []
        try:
            for piece in client.answer(model, messages):
                said.append(piece)
                click.echo(piece, nl=False)
        except KeyboardInterrupt:
            pass  # what was said so far stays said
        except Gone as error:
            click.echo(f"[{error}]", err=True, nl=False)
        click.echo()
        messages.append({"role": "assistant", "content": "".join(said)})
