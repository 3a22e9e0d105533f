"""The gateway as an eval sees it: over HTTP, patient where it is told to wait, tokens counted."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from gateway.charges import read_usage
from model.protocol.errors import read_error

TRIES = 5
MAX_WAIT_S = 30.0
Json = dict[str, Any]
PriceOf = Callable[[str, int, int, int], int]  # release, prompt, cached, completion → nano-dollars


class Unanswered(Exception):
    """The gateway refused, failed or was not there; the message says which."""


class Reply(msgspec.Struct, frozen=True):
    body: Json
    prompt_tokens: int
    completion_tokens: int
    cost: int  # nano-dollars
    total_us: int


class Client:
    """`url`: where the gateway is, without /v1. An answer that was kept earlier is never taken."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, key: str, price_of: PriceOf
    ) -> None:
        self._session, self._url, self._price_of = session, url.rstrip("/"), price_of
        self._headers = {"cache-control": "no-store"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    async def post(self, path: str, body: Json) -> Reply:
        """Raises Unanswered; on 429 and 503 only after it has waited as it was told."""
        for attempt in range(TRIES):
            start = time.monotonic()
            status, headers, raw = await self._exchange("POST", path, body)
            if status == 200:
                return self._reply(headers, raw, round((time.monotonic() - start) * 1e6))
            if status not in (429, 503) or attempt == TRIES - 1:
                break
            await asyncio.sleep(min(MAX_WAIT_S, _seconds(headers) or 0.5 * 2**attempt))
        raise Unanswered(read_error(status, raw).message)

    async def releases(self) -> dict[str, str]:
        """Family → the release that serves it now. Raises Unanswered."""
        status, _, raw = await self._exchange("GET", "/v1/models", None)
        if status != 200:
            raise Unanswered(read_error(status, raw).message)
        models = _object(raw).get("data", ())
        return {it["id"]: it["release"] for it in models if it.get("release")}

    async def _exchange(
        self, method: str, path: str, body: Json | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=self._headers
            ) as reply:
                return reply.status, reply.headers, await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or repr(error)
            raise Unanswered(f"the gateway does not answer: {why}") from error

    def _reply(self, headers: Mapping[str, str], raw: bytes, total_us: int) -> Reply:
        body = _object(raw)
        used = read_usage(body.get("usage") or {})
        release = headers.get("x-glassgate-release", "")
        cost = self._price_of(release, used.prompt, used.cached, used.completion)
        return Reply(body, used.prompt, used.completion, cost, total_us)


def _object(raw: bytes) -> Json:
    try:
        return msgspec.json.decode(raw, type=Json)
    except msgspec.DecodeError as error:
        raise Unanswered(f"what answers there is no gateway: {error}") from error


def _seconds(headers: Mapping[str, str]) -> float:
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0


def content(reply: Reply) -> str:
    return reply.body["choices"][0]["message"].get("content") or ""


def first_probabilities(reply: Reply) -> list[tuple[str, float]]:
    """The likeliest first tokens of a chat answer with their log-probabilities."""
    scored = (reply.body["choices"][0].get("logprobs") or {}).get("content") or []
    return [(it["token"], it["logprob"]) for it in scored[0]["top_logprobs"]] if scored else []


def suffix_logprobs(reply: Reply, prefixes: Sequence[str]) -> list[list[float]]:
    """Of echoed completions: the log-probabilities of the tokens behind each prefix."""
    found = []
    for choice, prefix in zip(reply.body["choices"], prefixes, strict=True):
        said = choice["logprobs"]
        pairs = zip(said["text_offset"], said["tokens"], said["token_logprobs"], strict=True)
        found.append([p for at, text, p in pairs if at + len(text) > len(prefix) and p is not None])
    return found
