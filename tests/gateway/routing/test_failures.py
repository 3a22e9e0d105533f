"""Whose fault a failure is."""

import json

import pytest

from gateway.routing.failures import is_refusal, is_too_long, judge
from gateway.upstream import UpstreamError


def said(status: int, message: str = "", code: object = None, type: str = "x") -> UpstreamError:  # noqa: A002
    body = json.dumps({"error": {"message": message, "code": code, "type": type}})
    return UpstreamError("status", status=status, body=body.encode())


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (UpstreamError("connect"), "again"),
        (UpstreamError("truncated"), "again"),
        (UpstreamError("timeout_idle"), "elsewhere"),
        (UpstreamError("too_large"), "elsewhere"),
        (said(400), "client"),
        (said(422), "client"),
        (said(401), "elsewhere"),
        (said(404), "elsewhere"),
        (said(302), "elsewhere"),
        (said(408), "again"),
        (said(429), "again"),
        (said(429, code="insufficient_quota"), "elsewhere"),  # waiting does not fill it
        (said(500), "again"),
        (said(529), "again"),
        (said(403, code="content_policy_violation"), "client"),
        (UpstreamError("status", status=500, body=b"<html>"), "again"),
        (UpstreamError("status", status=400, body=b"\xff"), "client"),
    ],
)
def test_judge(error: UpstreamError, verdict: str) -> None:
    assert judge(error) == verdict


@pytest.mark.parametrize(
    "error",
    [
        said(400, code="context_length_exceeded"),
        said(400, "This model's maximum context length is 4096 tokens. However, …", code=400),
        said(
            400, "the request exceeds the available context size", type="exceed_context_size_error"
        ),
        said(422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
        said(413, "prompt is too long: 9 tokens > 8 maximum"),
        UpstreamError("status", status=400, body=b'{"detail": "exceeds the context window"}'),
    ],
)
def test_too_long(error: UpstreamError) -> None:
    assert is_too_long(error)
    assert not is_refusal(error)


def test_neither() -> None:
    assert not is_too_long(said(500, code="context_length_exceeded"))
    assert not is_too_long(said(400, "temperature must be positive"))
    assert not is_too_long(UpstreamError("reset"))
    assert is_refusal(said(400, code="content_filter"))
