"""For who knows locust: users in a closed loop who think between two answers.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 [ChatUser …]

The key is LOAD_KEY. LOAD_MODEL and LOAD_EMBEDDER name the models of another server than ours; with
the first alone nobody asks for embeddings. TTFT and TPOT appear as request types of their own. The
first token is taken from the raw stream: FastHttpUser's `iter_lines` waits for 1,024 bytes, in
which many tokens fit.
"""

import itertools
import os
import time
from http.client import HTTPException
from typing import Any

from locust import FastHttpUser, between, task

from loadtests.client import Record, take_line
from loadtests.drive import auth
from loadtests.users import Sent, request

MODEL = os.environ.get("LOAD_MODEL", "")
EMBEDDER = os.environ.get("LOAD_EMBEDDER", "" if MODEL else "minilm")
NUMBERS = itertools.count(time.time_ns())  # no two users ask the same, in no two runs


class Client(FastHttpUser):
    abstract = True
    wait_time = between(1, 3)
    kind, family, prompt = "chat", MODEL or "smollm2", 0

    @task
    def ask(self) -> None:
        sent = request(self.kind, self.family, next(NUMBERS), self.prompt)
        started = time.perf_counter()
        headers = {"content-type": "application/json", **auth("")}
        with self.client.post(
            sent.path,
            sent.body.decode(),
            name=self.kind,
            headers=headers,
            stream=True,
            catch_response=True,
        ) as reply:
            error = f"status {reply.status_code}"
            if not sent.is_welcome and 400 <= reply.status_code < 500:
                error = ""
            elif sent.is_welcome and reply.status_code == 200:
                error = self._read(reply, sent, started)
            reply.failure(error) if error else reply.success()
            reply.request_meta["response_time"] = (time.perf_counter() - started) * 1000

    def _read(self, reply: Any, sent: Sent, started: float) -> str:
        """Read to the end and tell the waits; what went wrong, or nothing."""
        if not sent.is_stream:
            return "" if reply.content else "truncated"
        record = Record("", self.kind, "", "", started, error="truncated")
        try:
            for line in iter(lambda: reply.stream.readline(b"\n"), b""):
                if not take_line(line, record, time.perf_counter()):
                    break
        except (ValueError, OSError, HTTPException) as error:
            return type(error).__name__  # locust does not count what is raised
        record.end = time.perf_counter()
        for kind, seconds in (("TTFT", record.ttft), ("TPOT", record.tpot)):
            if seconds is not None and not record.error:
                self._tell(kind, seconds)
        return record.error

    def _tell(self, kind: str, seconds: float) -> None:
        said = {"request_type": kind, "name": self.kind, "response_time": seconds * 1000}
        self.environment.events.request.fire(**said, response_length=0, exception=None, context={})


class ChatUser(Client):
    weight = 6


class RagUser(Client):
    kind, family = "rag", MODEL or "python-docs"


class CachedUser(Client):
    kind, weight = "cached", 2


class EmbeddingsUser(Client):
    abstract = not EMBEDDER
    kind, family = "embeddings", EMBEDDER


class LongPromptUser(Client):
    kind, prompt = "long", 8000


class HostileUser(Client):
    kind = "hostile"
