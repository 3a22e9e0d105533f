"""Logs as JSON lines on stderr: allow-listed fields only, no secret, no control character.

What a client wrote is never logged: neither prompts nor answers, nor a header but its request id.
"""

import asyncio
import logging
import sys
import time
from functools import lru_cache
from typing import Any

import msgspec
from starlette.types import Scope

from gateway.call import Call
from gateway.masks import clean

_waiting: list[str] = []


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(record.getMessage()),
        }
        if record.exc_info:
            line["trace"] = clean(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def set_up(level: int = logging.INFO) -> None:
    """For a process that is the gateway; a library leaves logging alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_request(scope: Scope, status: int, seconds: float) -> None:
    """One line per request, of these fields and no others; `scope["call"]` is there if it got so
    far. Written past `logging`, which would cost more than the rest of the door."""
    call: Call | None = scope.get("call")
    path = scope["path"] if call else clean(scope["path"])  # a call came by one of our own paths
    line: dict[str, Any] = {
        "time": _time(time.time()),
        "level": "info",
        "logger": "glassgate.access",
        "message": f"{scope['method']} {path}",
        "request_id": scope["request_id"],
        "status": status,
        "ms": round(seconds * 1000, 1),
        "client": scope["client_address"],
    }
    if call is not None:
        line |= {
            "key": call.principal.key_id,
            "team": call.principal.team,
            "family": call.family,
            "release": call.release,
            "target": call.target.name if call.target else "",
            "attempts": len(call.attempts),
            "prompt_tokens": call.usage.prompt,
            "completion_tokens": call.usage.completion,
            "outcome": call.outcome,
        }
    if not _waiting:
        asyncio.get_running_loop().call_soon(_write)
    _waiting.append(msgspec.json.encode(line).decode() + "\n")


def _write() -> None:
    """What one turn of the event loop had to say: each write lets another thread go first."""
    lines = "".join(_waiting)
    _waiting.clear()
    sys.stderr.write(lines)


def _time(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
