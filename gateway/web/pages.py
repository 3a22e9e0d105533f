"""The pages and their files, read once, and the headers that bind them to this origin.

What is sent is the same for everybody and holds nothing of anybody: whatever a page shows it asks
of the API, with the key of who looks at it.
"""

import hashlib
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import Response

HERE = Path(__file__).parent
PAGES = {"/": "chat", "/usage": "usage"}
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# No script or style but from our files, no request but to us, no HTML out of text, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",  # kept, but asked for again: 304 while it is the same
}


class Asset:
    """An endpoint that always says the same."""

    def __init__(self, content: bytes, kind: str) -> None:
        self.content = content
        self.kind = kind
        self.headers = HEADERS | {"etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}

    async def __call__(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self.headers["etag"]:
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers, media_type=self.kind)


def page(name: str) -> bytes:
    """The frame with the page's own part in it; the script of that name brings it to life."""
    here = {f"{it}_here": 'aria-current="page"' if it == name else "" for it in PAGES.values()}
    main = _read(f"templates/{name}.html")
    frame = Template(_read("templates/frame.html"))
    return frame.substitute(here, name=name, title=name.capitalize(), main=main).encode()


def _read(path: str) -> str:
    return (HERE / path).read_text(encoding="utf-8")


def _files() -> dict[str, Asset]:
    """URL → every file below `static` that a browser is to have."""
    static = HERE / "static"
    return {
        f"/web/{path.relative_to(static).as_posix()}": Asset(path.read_bytes(), KINDS[path.suffix])
        for path in sorted(static.rglob("*"))
        if path.suffix in KINDS
    }


ASSETS = {url: Asset(page(name), "text/html") for url, name in PAGES.items()} | _files()
