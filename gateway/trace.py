"""The names by which one request is found again: its id, and its place in a wider trace.

Ids from outside are taken only in a form that can be logged and sent on as it is.
"""

import random
import re
import time

_ID = re.compile(r"[A-Za-z0-9._:/=+-]{1,128}")
_PARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


def request_id(given: str) -> str:
    """The client's own id where it is a plain word, else a new one that sorts by time."""
    if _ID.fullmatch(given):
        return given
    return f"req_{time.time_ns() // 1_000_000:012x}{_hex(8)}"


def traceparent(given: str) -> str:
    """The header for the upstream: the caller's trace goes on, or a new one begins (W3C)."""
    match = _PARENT.fullmatch(given)
    trace, flags = match.groups() if match else (_hex(16), "01")
    return f"00-{trace}-{_hex(8)}-{flags}"


def _hex(num_bytes: int) -> str:
    return f"{random.getrandbits(8 * num_bytes):0{2 * num_bytes}x}"
