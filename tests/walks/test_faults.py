"""The fault table as a client of the whole gateway sees it, all rows at the same time.

Scaled down, and with the real deadlines, where the bounds on time are checked too.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp
import pytest

from loadtests.faults import ANSWER, FaultServer

pytestmark = pytest.mark.anyio

Outcome = Literal["whole", "cut", "refused", "limited"]

USAGE = {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67}


@dataclass
class Row:
    """A family: which faults its upstreams have, and what must come of it."""

    targets: tuple[str, ...]
    outcome: Outcome
    within: float  # seconds
    num_asked: int  # of the first target, at most
    recovery: str = "error"
    larger: str = ""


ROWS = {
    "limited-once": Row(("rate-limit-once",), "whole", 5, 2),
    "limited": Row(("rate-limit", "ok"), "whole", 10, 3),
    "limited-alone": Row(("rate-limit-bare",), "limited", 10, 4),
    "500-once": Row(("error-500-once", "ok"), "whole", 5, 2),
    "503": Row(("error-503", "ok"), "whole", 10, 3),
    "reset-once": Row(("reset-once", "ok"), "whole", 5, 2),
    "silent": Row(("silent", "ok"), "whole", 35, 1),
    "slow": Row(("slow-first-token", "ok"), "whole", 15, 1),
    "cut-error": Row(("cut", "ok"), "cut", 5, 1),
    "cut-hold": Row(("cut", "ok"), "whole", 10, 3, "hold"),
    "cut-continue": Row(("cut", "ok"), "whole", 5, 1, "continue"),
    "stall-error": Row(("stall", "ok"), "cut", 45, 1),
    "stall-hold": Row(("stall", "ok"), "whole", 45, 1, "hold"),
    "stall-continue": Row(("stall", "ok"), "whole", 45, 1, "continue"),
    "malformed-error": Row(("malformed", "ok"), "cut", 5, 1),
    "malformed-hold": Row(("malformed", "ok"), "whole", 10, 3, "hold"),
    "no-done": Row(("no-done",), "whole", 8, 1),
    "too-long": Row(("context-length", "ok"), "refused", 5, 1),
    "too-long-larger": Row(("context-length", "error-500"), "whole", 5, 1, larger="ok"),
    "policy": Row(("content-policy", "ok"), "refused", 5, 1),
    "no-prefill": Row(("cut", "no-prefill"), "cut", 5, 1, "continue"),
}


def config(upstream: str, scale: float, folder: Path) -> str:
    """Every row has upstreams of its own: `fault:row`, the same fault to the fault server."""
    deadlines = {"headers": 10, "first_token": 10, "idle": 15, "total": 30}
    scaled = ", ".join(f"{name} = {seconds * scale}" for name, seconds in deadlines.items())
    lines = [f'[store]\nurl = "sqlite:///{folder}/store.db"\njournal = "{folder}/journal"']
    for name, row in ROWS.items():
        targets = [*row.targets, *filter(None, [row.larger])]
        for target in targets:
            lines += [
                f'[upstreams."{name}.{target}"]\nbase_url = "{upstream}"',
                f'model = "{target}:{name}"\ndeadlines = {{ {scaled} }}',
                f"can_continue = {str(target != row.targets[0]).lower()}",
            ]
        lines += [
            f'[families.{name}]\nlabels = {{ production = "{name}-1" }}',
            f"fallbacks = {json.dumps([f'{name}.{it}' for it in row.targets[1:]])}",
            f'stream_recovery = "{row.recovery}"',
            f'context_fallback = "{f"{name}.{row.larger}" if row.larger else ""}"',
            f'[releases.{name}-1]\nfamily = "{name}"\nupstream = "{name}.{row.targets[0]}"',
        ]
    return "\n".join(lines)


@asynccontextmanager
async def gateway(path: Path) -> AsyncIterator[str]:
    command = ("-m", "gateway", "gateway", "--config", str(path), "--port", "0")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=pipe)
    try:
        assert process.stderr is not None
        while b"answers at" not in (line := await process.stderr.readline()):
            assert line, "the gateway ended at once"
        drain = asyncio.create_task(process.stderr.read())
        yield line.split()[-1].decode()
    finally:
        process.terminate()
        await process.wait()
        await drain


async def check(name: str, row: Row, url: str, stream: bool, timed: bool) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Count."}], "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    started = time.monotonic()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/chat/completions", json=body) as reply,
    ):
        raw = await reply.read()
    events = [json.loads(it[6:]) for it in raw.split(b"\n\n") if it.startswith(b"data: {")]
    text = "".join(
        it["choices"][0]["delta"].get("content", "") for it in events if it.get("choices")
    )
    is_done = raw.endswith(b"data: [DONE]\n\n")
    assert not timed or time.monotonic() - started <= row.within
    if row.outcome == "whole":
        assert (text, is_done) == (ANSWER, True)
        assert len({event["model"] for event in events}) == 1
        assert events[-1]["usage"] == USAGE
    elif row.outcome == "cut":
        assert ANSWER.startswith(text)
        assert "error" in events[-1]
        assert not is_done
    else:
        assert reply.status == (400 if row.outcome == "refused" else 429)
        assert ("retry-after" in reply.headers) == (row.outcome == "limited")
        assert json.loads(raw)["error"]["message"]


@pytest.mark.parametrize("scale", [0.08, pytest.param(1.0, marks=pytest.mark.services)])
async def test_table(scale: float, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    async with FaultServer(scale) as upstream:
        path.write_text(config(upstream.base_url, scale, tmp_path))
        async with gateway(path) as url:
            checks = [check(name, row, url, True, scale == 1.0) for name, row in ROWS.items()]
            results = await asyncio.gather(*checks, return_exceptions=True)
    failed = {name: error for name, error in zip(ROWS, results, strict=True) if error}
    assert not failed
    for name, row in ROWS.items():
        first = [ask for ask in upstream.seen if ask.model == f"{row.targets[0]}:{name}"]
        every = [ask for ask in upstream.seen if ask.model.endswith(f":{name}")]
        assert 1 <= len(first) <= row.num_asked
        assert len(every) <= 6
