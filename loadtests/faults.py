"""An upstream that fails on purpose, in raw sockets; which fault is chosen by the model's name.

    python -m loadtests.faults --port 9000

`ok` answers 60 words, `cut` closes after 40 of them, and so on through `FAULTS`; `cut-once` fails
once and answers from then on. What follows a colon is a tag: `cut-once:a` and `cut-once:b` fail
once each. `GET /faults/seen` lists what was asked; `POST /faults/down?seconds=60` closes the port
for a while. All seconds are multiplied by `--scale`.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

NUM_WORDS = 60
ANSWER = "".join(f"word{i} " for i in range(NUM_WORDS))
MESSAGES = {
    "context_length_exceeded": "This model's maximum context length is 8192 tokens, not 9000.",
    "content_policy_violation": "This content is against the policy.",
}


@dataclass(frozen=True)
class Fault:
    """What is done to a request, in the order of the fields. Times in seconds."""

    status: int = 200
    code: str | None = None
    retry_after: float | None = None
    refuses_prefill: bool = False
    silence: float = 0.0  # before the headers
    instead: Literal["", "reset", "close"] = ""  # of any answer
    first_token: float = 0.0  # silence between the headers and the first word
    num_words: int = NUM_WORDS  # after so many …
    stall: float = 0.0  # … silence …
    then: Literal["go on", "close", "end", "garble"] = "go on"  # … and this
    is_done: bool = True  # [DONE] and the end follow the finish
    is_once: bool = False


FAULTS = {
    "ok": Fault(),
    "rate-limit": Fault(status=429, retry_after=2.0),
    "rate-limit-bare": Fault(status=429),
    "error-500": Fault(status=500),
    "error-503": Fault(status=503),
    "reset": Fault(instead="reset"),
    "silent": Fault(silence=120.0, instead="close"),
    "slow-first-token": Fault(first_token=20.0),
    "cut": Fault(num_words=40, then="close"),
    "truncated": Fault(num_words=40, then="end"),
    "stall": Fault(num_words=40, stall=30.0),
    "malformed": Fault(num_words=40, then="garble"),
    "no-done": Fault(is_done=False),
    "context-length": Fault(status=400, code="context_length_exceeded"),
    "content-policy": Fault(status=400, code="content_policy_violation"),
    "no-prefill": Fault(refuses_prefill=True),
}
FAULTS |= {f"{name}-once": replace(fault, is_once=True) for name, fault in FAULTS.items()}


@dataclass
class Ask:
    """One request for a chat completion. `nth` counts those for the same model, from 1."""

    model: str
    body: dict[str, Any]
    nth: int
    at: float = field(default_factory=time.monotonic)

    @property
    def fault(self) -> Fault:
        fault = FAULTS.get(self.model.partition(":")[0], Fault(status=404))
        return Fault() if fault.is_once and self.nth > 1 else fault

    @property
    def prefill(self) -> str:
        """The beginning of the answer, if the last message is the assistant's."""
        last = self.body["messages"][-1]
        return str(last["content"]) if last["role"] == "assistant" else ""

    @property
    def usage(self) -> dict[str, int]:
        num_given = len(self.prefill.split())
        counts = {"prompt_tokens": 7 + num_given, "completion_tokens": NUM_WORDS - num_given}
        return {**counts, "total_tokens": 7 + NUM_WORDS}

    def piece(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> str:
        head = {"id": f"{kind}-{self.nth}", "object": kind, "created": 1, "model": self.model}
        return json.dumps({**head, "choices": choices, **more})

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self.piece("chat.completion.chunk", [choice])

    def usage_chunk(self) -> str:
        return self.piece("chat.completion.chunk", [], usage=self.usage)

    def completion(self) -> bytes:
        message = {"role": "assistant", "content": ANSWER[len(self.prefill) :]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self.piece("chat.completion", [choice], usage=self.usage).encode()


class Wire:
    """A client's connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def json(self, content: object, status: int = 200, **headers: str) -> None:
        data = json.dumps(content).encode()
        headers |= {"content_type": "application/json", "content_length": str(len(data))}
        await self.head(status, **headers)
        await self.send(data)

    async def event(self, data: str) -> None:
        frame = f"data: {data}\n\n".encode()
        await self.send(b"%x\r\n%b\r\n" % (len(frame), frame))

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Close with RST, as the peer of a crashed machine does."""
        linger = struct.pack("ii", 1, 0)
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()


async def answer(ask: Ask, wire: Wire, scale: float) -> None:
    """Do to `ask` what its model's fault says."""
    fault = ask.fault
    status = 400 if fault.refuses_prefill and ask.prefill else fault.status
    if status != 200:
        kind = {429: "rate_limit_error"}.get(status, "invalid_request_error")
        message = MESSAGES.get(fault.code or "", "This went wrong on purpose.")
        error = {"message": message, "type": kind, "param": None, "code": fault.code}
        wait = fault.retry_after
        await wire.json({"error": error}, status, **_retry_after(wait and wait * scale))
        return
    await asyncio.sleep(fault.silence * scale)
    if fault.instead:
        wire.reset() if fault.instead == "reset" else wire.close()
    elif ask.body.get("stream"):
        await _stream(ask, fault, wire, scale)
    else:
        await _whole(ask, fault, wire, scale)


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"retry_after": f"{seconds:g}"}


async def _whole(ask: Ask, fault: Fault, wire: Wire, scale: float) -> None:
    """A body in one piece; a fault after some words becomes one after that part of the body."""
    await asyncio.sleep(fault.first_token * scale)
    data = ask.completion()
    half = len(data) * fault.num_words // NUM_WORDS
    await wire.head(200, content_type="application/json", content_length=str(len(data)))
    await wire.send(data[:half])
    await asyncio.sleep(fault.stall * scale)
    if fault.then in ("close", "end"):
        wire.close()
    else:
        await wire.send(data[half:] if fault.then == "go on" else b"!" * (len(data) - half))


async def _stream(ask: Ask, fault: Fault, wire: Wire, scale: float) -> None:
    await wire.head(200, content_type="text/event-stream", transfer_encoding="chunked")
    await wire.event(ask.chunk({"role": "assistant", "content": ""}))
    await asyncio.sleep(fault.first_token * scale)
    for i in range(len(ask.prefill.split()), NUM_WORDS):
        if i == fault.num_words:
            await asyncio.sleep(fault.stall * scale)
            if fault.then == "close":
                return wire.close()
            if fault.then == "end":
                return await wire.send(b"0\r\n\r\n")
        text = ask.chunk({"content": f"word{i} "})
        is_garbled = fault.then == "garble" and i == fault.num_words
        await wire.event(text[:-40] if is_garbled else text)
    await wire.event(ask.chunk({}, "stop"))
    await wire.event(ask.usage_chunk())
    if not fault.is_done:
        await asyncio.sleep(60 * scale)
        return wire.close()
    await wire.event("[DONE]")
    return await wire.send(b"0\r\n\r\n")


class FaultServer:
    """Listens on loopback. `seen` has what was asked, `num_probes` counts lists of the models."""

    def __init__(self, scale: float = 1.0, port: int = 0) -> None:
        self.seen: list[Ask] = []
        self.num_probes = 0
        self._scale = scale
        self._port = port  # 0: a free one, kept over `stop` and `start`
        self._counts: Counter[str] = Counter()
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and whatever is connected; who connects now is refused."""
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                await self._answer(head.split(" ")[1], body, Wire(writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client may leave whenever it likes
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes, wire: Wire) -> None:
        if path == "/v1/chat/completions":
            asked = json.loads(body)
            self._counts[asked["model"]] += 1
            self.seen.append(Ask(asked["model"], asked, self._counts[asked["model"]]))
            await answer(self.seen[-1], wire, self._scale)
        elif path == "/v1/models":
            self.num_probes += 1
            await wire.json({"object": "list", "data": [{"id": name} for name in FAULTS]})
        elif path == "/faults/seen":
            await wire.json([asdict(ask) for ask in self.seen])
        elif path.startswith("/faults/down?seconds="):
            await wire.json({})
            self._outage = asyncio.create_task(self._go_down(float(path.partition("=")[2])))
        else:
            await wire.json({"error": {"message": f"there is no {path}"}}, 404)

    async def _go_down(self, seconds: float) -> None:
        await self.stop()
        await asyncio.sleep(seconds * self._scale)
        await self.start()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all times")
    options = parser.parse_args()
    async with FaultServer(options.scale, options.port) as server:
        print(f"{server.base_url}: {' '.join(FAULTS)}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
