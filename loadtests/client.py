"""One request over aiohttp, and what was seen of it and when.

Waits count from the time the request was due, so a server that keeps the generator from sending
does not look better for it (Tene's coordinated omission).
"""

import time
from typing import Any

import aiohttp
import msgspec

from loadtests.users import Sent


class Record(msgspec.Struct):
    """One line of the raw log. Times in seconds of one monotonic clock."""

    phase: str
    user: str
    tenant: str
    request_id: str
    due: float
    sent: float = 0.0
    first: float | None = None  # the first content
    end: float = 0.0  # until then of the last content
    gaps: list[float] = []  # between one piece of content and the next
    status: int = 0
    error: str = "given up"  # empty: as it should be
    prompt: int = 0  # tokens, as the server's usage has them
    cached: int = 0
    completion: int = 0
    release: str = ""

    @property
    def ttft(self) -> float | None:
        return None if self.first is None else self.first - self.due

    @property
    def e2e(self) -> float:
        return self.end - self.due

    @property
    def tpot(self) -> float | None:
        """(E2E - TTFT) / (output - 1); none for an answer of one token."""
        if self.first is None or self.completion < 2:
            return None
        return (self.end - self.first) / (self.completion - 1)


class Details(msgspec.Struct):
    cached_tokens: int | None = 0


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta = msgspec.field(default_factory=Delta)


class Event(msgspec.Struct):
    """A chunk of a stream, or a body, in the fields that are measured."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


decode = msgspec.json.Decoder(Event).decode


async def ask(
    http: aiohttp.ClientSession, url: str, sent: Sent, headers: dict[str, str], record: Record
) -> None:
    """Send it and fill in the record; whatever happens is written there as its error."""
    record.sent = time.monotonic()
    headers = {"content-type": "application/json", "x-request-id": record.request_id, **headers}
    try:
        async with http.post(url + sent.path, data=sent.body, headers=headers) as reply:
            record.status = reply.status
            record.release = reply.headers.get("x-glassgate-release", "")
            if reply.status != 200:
                await reply.read()
                record.error = f"status {reply.status}"
            elif sent.is_stream:
                record.error = "truncated"
                async for line in reply.content:
                    if not take_line(line, record, time.monotonic()):
                        break
            else:
                take_usage(decode(await reply.read()), record)
                record.error = ""
    except TimeoutError:
        record.error = "timeout"
    except ValueError:  # of msgspec, and of aiohttp for a line without end
        record.error = "malformed"
    except aiohttp.ClientConnectorError:
        record.error = "refused"
    except aiohttp.ClientError:
        record.error = "reset"
    finally:
        record.end = time.monotonic()
    if not sent.is_welcome:
        record.error = "" if 400 <= record.status < 500 else f"let in: {record.status}"


def take_line(line: bytes, record: Record, now: float) -> bool:
    """A line of a stream, seen `now`, goes into the record; is there any use in the next?

    After [DONE] there is: a connection that is left before its end is not used again.
    """
    if line.startswith(b"data: [DONE]"):
        record.error = ""
    if not line.startswith(b"data: {"):
        return True
    event = decode(line[6:])
    if event.error is not None:
        record.error = "in-band"
        return False
    if any(choice.delta.content for choice in event.choices):
        if record.first is None:
            record.first = now
        else:
            record.gaps.append(now - record.end)
        record.end = now
    take_usage(event, record)
    return True


def take_usage(event: Event, record: Record) -> None:
    if (usage := event.usage) is not None:
        record.prompt, record.completion = usage.prompt_tokens, usage.completion_tokens
        details = usage.prompt_tokens_details
        record.cached = details.cached_tokens or 0 if details else 0
