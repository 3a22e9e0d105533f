"""Stops the work for a client who has left.

Streaming or not, queued or running, a request is one task. When its client goes away that task is
cancelled wherever it waits, and the contexts it is in let go of what they hold.
"""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelWhenGone:
    """ASGI middleware. Watches a connection from the moment its request has been read whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_read, is_gone = asyncio.Event(), asyncio.Event()

        async def receive_body() -> Message:
            """The request's own messages; after them nothing, until the client has gone."""
            if is_read.is_set():
                await is_gone.wait()
                return {"type": "http.disconnect"}
            message = await receive()
            if not message.get("more_body"):
                is_read.set()
            return message

        async def watch() -> None:
            await is_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self.app(scope, receive_body, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_gone.set()
            watcher.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
