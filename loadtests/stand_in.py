"""The two ends that overhead is measured between: an upstream that costs nothing, and a bare proxy.

Both are ASGI applications for uvicorn (`uvicorn loadtests.stand_in:upstream`). The proxy is the
least that starlette and aiohttp can do for the same traffic: what a gateway costs beyond it, its
features cost. It reads UPSTREAM, a base URL up to and with /v1.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

NUM_CHUNKS = 64
HEAD = b'"id":"chatcmpl-1","created":1700000000,"model":"m"'
USAGE = b'"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}'
ANSWER = (
    b'{%b,"object":"chat.completion","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Paris."},"finish_reason":"stop"}],%b}' % (HEAD, USAGE)
)


def _event(delta: bytes, finish: bytes = b"null") -> bytes:
    choice = b'[{"index":0,"delta":{%b},"finish_reason":%b}]' % (delta, finish)
    return b'data: {%b,"object":"chat.completion.chunk","choices":%b}\n\n' % (HEAD, choice)


CHUNKS = [_event(b'"content":" word"')] * (NUM_CHUNKS - 1) + [_event(b"", b'"stop"')]
END = b'data: {%b,"object":"chat.completion.chunk","choices":[],%b}\n\n' % (HEAD, USAGE)


async def upstream(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once: a stream where the body asks for one, else one completion."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    is_streamed = b'"stream":true' in body.replace(b" ", b"")
    kind = b"text/event-stream" if is_streamed else b"application/json"
    headers = [(b"content-type", kind)]
    if not is_streamed:
        headers.append((b"content-length", b"%d" % len(ANSWER)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for chunk in CHUNKS if is_streamed else ():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    last = END + b"data: [DONE]\n\n" if is_streamed else ANSWER
    await send({"type": "http.response.body", "body": last})


@contextlib.asynccontextmanager
async def _session(app: Starlette) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as app.state.session:
        yield


async def _relay(request: Request) -> StreamingResponse:
    url = os.environ["UPSTREAM"] + request.url.path.removeprefix("/v1")
    body = await request.body()
    reply = await request.app.state.session.post(
        url, data=body, headers={"content-type": "application/json"}
    )

    async def chunks() -> AsyncIterator[bytes]:
        async with reply:
            async for chunk in reply.content.iter_any():
                yield chunk

    return StreamingResponse(chunks(), reply.status, media_type=reply.headers["content-type"])


proxy = Starlette(
    routes=[Route("/v1/chat/completions", _relay, methods=["POST"])], lifespan=_session
)
