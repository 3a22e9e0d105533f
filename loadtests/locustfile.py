"""For who knows locust: users in a closed loop who think between two answers.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 [ChatUser …]

The key is LOAD_KEY. TTFT and TPOT appear as request types of their own. A first token is taken from
the raw stream: FastHttpUser's `iter_lines` waits for 1,024 bytes, in which many tokens fit.
"""

import itertools
import time
from typing import Any

from locust import FastHttpUser, between, task

from loadtests.client import decode
from loadtests.drive import auth
from loadtests.users import Sent, request

NUMBERS = itertools.count(time.time_ns())  # no two users ask the same, in no two runs


class Client(FastHttpUser):
    abstract = True
    wait_time = between(1, 3)
    kind, family, prompt = "chat", "smollm2", 0

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
            is_fine = 400 <= reply.status_code < 500
            if sent.is_welcome:
                is_fine = reply.status_code == 200 and self._read(reply, sent, started)
            reply.success() if is_fine else reply.failure(f"status {reply.status_code}")
            reply.request_meta["response_time"] = (time.perf_counter() - started) * 1000

    def _read(self, reply: Any, sent: Sent, started: float) -> bool:
        """Read to the end, tell the waits, and say whether the end was the true one."""
        if not sent.is_stream:
            return bool(reply.content)
        first, end, output = 0.0, 0.0, 0
        while line := reply.stream.readline(b"\n"):
            now = time.perf_counter()
            if line.startswith(b"data: [DONE]"):
                end = now
            elif line.startswith(b"data: {"):
                event = decode(line[6:])
                if not first and any(choice.delta.content for choice in event.choices):
                    first = now
                output = event.usage.completion_tokens if event.usage else output
        if first and end:
            self._tell("TTFT", first - started)
            self._tell("TPOT", (end - first) / max(1, output - 1))
        return bool(end)

    def _tell(self, kind: str, seconds: float) -> None:
        said = {"request_type": kind, "name": self.kind, "response_time": seconds * 1000}
        self.environment.events.request.fire(**said, response_length=0, exception=None, context={})


class ChatUser(Client):
    weight = 6


class RagUser(Client):
    kind, family = "rag", "python-docs"


class CachedUser(Client):
    kind, weight = "cached", 2


class EmbeddingsUser(Client):
    kind, family = "embeddings", "minilm"


class LongPromptUser(Client):
    kind, prompt = "long", 8000


class HostileUser(Client):
    kind = "hostile"
