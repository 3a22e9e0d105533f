"""The names by which one request is found again: its id, and its place in a wider trace.

Ids from outside are taken only in a form that can be logged and sent on as it is. What is kept of a
traced request is `tracing`'s.
"""

import random
import re
import time
from typing import NamedTuple

_ID = re.compile(r"[A-Za-z0-9._:/=+-]{1,128}")
# A version after 00 may say more behind a further dash; ff is none.
_PARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class Place(NamedTuple):
    """A request's place in a trace: it is the span `span_id`, below its caller's `parent_id`."""

    trace_id: str
    span_id: str
    parent_id: str  # "" where the trace begins here
    is_sampled: bool

    @property
    def header(self) -> str:
        """The `traceparent` of whom we ask, and the `traceresponse` of who asked us (W3C)."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def join(traceparent: str, sample: float) -> Place:
    """The caller's trace goes on, kept if the caller keeps it; else a new one begins, of which the
    share `sample` is kept."""
    if match := _PARENT.fullmatch(traceparent):
        trace_id, parent_id, flags = match.groups()
        return Place(trace_id, new_id(8), parent_id, bool(int(flags, 16) & 1))
    ids = new_id(24)
    return Place(ids[:32], ids[32:], "", random.random() < sample)  # noqa: S311 - no secret


def request_id(given: str) -> str:
    """The client's own id where it is a plain word, else a new one that sorts by time."""
    if given and _ID.fullmatch(given):
        return given
    return f"req_{time.time_ns() // 1_000_000:012x}{new_id(8)}"


def new_id(num_bytes: int) -> str:
    """Hexadecimal."""
    return f"{random.getrandbits(8 * num_bytes):0{2 * num_bytes}x}"
