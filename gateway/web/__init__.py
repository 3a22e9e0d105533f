"""The front door: two pages for people, `/` and `/usage`, and what they are made of.

The pages are clients of the gateway's API like any other: they hold no right that the key of who
looks at them does not have. Nothing on a request's road imports this room.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.web.families import list_families
from gateway.web.pages import ASSETS

Endpoint = Callable[[Request], Awaitable[Response]]

ROUTES: tuple[tuple[str, str, str, Endpoint], ...] = (
    *(("GET", path, "open", asset) for path, asset in ASSETS.items()),
    ("GET", "/web/families", "infer", list_families),
)
