"""What a failed attempt means: the client's own fault, worth another try there, or only elsewhere.

Pure functions over UpstreamError; when and where to try again is decided in `itinerary`.
"""

import re
from typing import Literal

from gateway.upstream import UpstreamError
from model.protocol.errors import read_error

Verdict = Literal["client", "again", "elsewhere"]

CLIENT_STATUSES = {400, 413, 415, 422}
AGAIN_STATUSES = {408, 409, 425, 429}
_POLICY = re.compile(r"content_policy|content_filter", re.IGNORECASE)
_NO_MONEY = re.compile(r"insufficient_quota|billing_hard_limit", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context_length|context[ _](length|size|window)|prompt is too long|max_new_tokens` must be",
    re.IGNORECASE,
)


def judge(error: UpstreamError) -> Verdict:
    if error.kind == "status":
        return _judge_status(error, error.status or 502)
    if error.kind in ("connect", "reset", "malformed", "truncated"):
        return "again"
    return "elsewhere"  # silence: asking again would double the wait


def is_refusal(error: UpstreamError) -> bool:
    """Did the upstream refuse the content, by its policy?"""
    return _says(error, _POLICY)


def is_too_long(error: UpstreamError) -> bool:
    """Did the upstream find the prompt longer than the model's context?"""
    return error.status in CLIENT_STATUSES and _says(error, _TOO_LONG)


def _judge_status(error: UpstreamError, status: int) -> Verdict:
    if status in CLIENT_STATUSES or is_refusal(error):
        return "client"
    if status in AGAIN_STATUSES or status >= 500:
        return "elsewhere" if _says(error, _NO_MONEY) else "again"
    return "elsewhere"  # 401, 403, 404 …: the upstream is not set up as the config says


def _says(error: UpstreamError, pattern: re.Pattern[str]) -> bool:
    if error.status is None or error.status >= 500:
        return False
    said = read_error(error.status, error.body)
    return any(pattern.search(str(it)) for it in (said.code, said.type, said.message))
