"""What an operator hears of attempts that failed: a line, and of more of the same only how many.

Left out is what may quote a prompt or an answer, as a 5xx and a broken connection may; and what is
the client's own fault, as the client hears it.
"""

import logging
import math
import time
from collections import Counter

from gateway.masks import clean
from gateway.routing.failures import judge
from gateway.upstream import Target, UpstreamError
from model.protocol.errors import read_error

log = logging.getLogger("glassgate.upstream")

PAUSE_S = 10.0  # between two lines of the same
MAX_TEXT = 300  # characters of what the upstream said
MIN_SECRET = 8  # characters: a shorter header hides nothing
OURS = {"connect", "malformed", "truncated", "too_large"}  # whose details nobody else has worded


class Complaints:
    def __init__(self) -> None:
        self._told_at: dict[tuple[str, str], float] = {}
        self._untold: Counter[tuple[str, str]] = Counter()

    def note(self, request_id: str, target: Target, error: UpstreamError) -> None:
        if judge(error) == "client":
            return
        what = f"status {error.status}" if error.kind == "status" else error.kind
        same, now = (target.name, what), time.monotonic()
        if now < self._told_at.get(same, -math.inf) + PAUSE_S:
            self._untold[same] += 1
            return
        self._told_at[same] = now
        said = _said(target, error)
        more = self._untold.pop(same, 0)
        log.warning(
            "upstream %s failed: %s%s; request %s%s",
            target.name,
            what,
            said and f", {said}",
            request_id or "of the gateway itself",
            f", and {more} more before it" if more else "",
        )


def _said(target: Target, error: UpstreamError) -> str:
    text = error.detail if error.kind in OURS else ""
    if error.status is not None and 400 <= error.status < 500:
        text = read_error(error.status, error.body).message
    for header in target.headers.values():
        secret = header.removeprefix("Bearer ")
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, "***")
    return clean(text)[:MAX_TEXT]
