"""An upstream that sends what no upstream should, beside one that is well."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from .evil import EVILS
from .town import ROOT, House, answers, free_port, until

pytestmark = [pytest.mark.services, pytest.mark.anyio]


@contextmanager
def evil() -> Iterator[str]:
    """The base URL of a process that answers with EVILS."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "tests/chaos/evil.py", str(port)], cwd=ROOT)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/"), "evil")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def families(url: str) -> str:
    """One for each evil, on an upstream of its own."""
    parts = []
    for n in range(len(EVILS)):
        parts.append(
            f'[upstreams.evil-{n}]\nbase_url = "{url}"\nmodel = "{n}"\n'
            "deadlines = { first_token = 2.0, idle = 2.0, total = 5.0 }\n"
            f'[families.evil-{n}]\nlabels = {{ production = "evil-{n}" }}\n'
            f'[releases.evil-{n}]\nfamily = "evil-{n}"\nupstream = "evil-{n}"\n'
        )
    return "".join(parts)


async def provoke(http: aiohttp.ClientSession, house: House, n: int, is_stream: bool) -> str:
    """What the client hears: a status that is no 200, or an error in the stream, or neither."""
    body = {"model": f"evil-{n}", "stream": is_stream, "max_tokens": 5}
    body["messages"] = [{"role": "user", "content": "hi"}]
    url = f"{house.url}/v1/chat/completions"
    async with http.post(url, json=body, headers=house.auth) as reply:
        said = await reply.read()
    if reply.status != 200:
        return f"status {reply.status}: {json.loads(said)['error']['type']}"
    return "error" if b'"error"' in said else "taken for an answer"


async def test_evil_upstreams(move_in: Callable[..., House], note: Callable[..., None]) -> None:
    with evil() as url:
        house = move_in(more=families(url))
        async with house.load() as healthy:
            await asyncio.sleep(8)
        before = house.rss_mb()
        heard: dict[str, set[str]] = {name: set() for name in EVILS}
        patience = aiohttp.ClientTimeout(total=60)
        async with house.load() as load, aiohttp.ClientSession(timeout=patience) as http:
            for is_stream in (True, False, True):
                asked = [provoke(http, house, n, is_stream) for n in range(len(EVILS))]
                for name, it in zip(EVILS, await asyncio.gather(*asked), strict=True):
                    heard[name].add(it)
        load.num_others = 3 * len(EVILS)
        note("oversized and malformed chunks elsewhere", house, healthy, load)
        after = house.rss_mb()
    assert not load.failed
    assert not any("taken for an answer" in them for them in heard.values()), heard
    assert not any("status 500" in it for them in heard.values() for it in them), heard
    assert after - before <= 100
    assert not any("Traceback" in line or '"trace"' in line for line in house.lines)
