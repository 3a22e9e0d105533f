"""What the log says of failed attempts: enough to mend it, bounded, no secret and no prompt."""

import logging

import pytest

from gateway.routing import complaints
from gateway.routing.complaints import Complaints
from gateway.upstream import Target, UpstreamError

KEY = "own-key-0123456789"
UP = Target(
    name="up", model="m", base_urls=("http://u/v1",), headers={"authorization": f"Bearer {KEY}"}
)


def status(code: int, message: str) -> UpstreamError:
    body = f'{{"error": {{"message": "{message}", "type": "t"}}}}'
    return UpstreamError("status", status=code, body=body.encode())


def told(caplog: pytest.LogCaptureFixture, *errors: UpstreamError) -> list[str]:
    it = Complaints()
    with caplog.at_level(logging.WARNING):
        for n, error in enumerate(errors):
            it.note(f"req_{n}", UP, error)
    return [record.getMessage() for record in caplog.records]


def test_why_an_upstream_refuses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert told(
        caplog,
        status(401, f"Incorrect API key provided: {KEY}, not sk-abcd-0123456789abc"),
        UpstreamError("connect", "Name or service not known"),
        UpstreamError("timeout_headers"),
    ) == [
        "upstream up failed: status 401, Incorrect API key provided: ***, not sk-abcd***; "
        "request req_0",
        "upstream up failed: connect, Name or service not known; request req_1",
        "upstream up failed: timeout_headers; request req_2",
    ]


def test_what_may_quote_a_client_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    [of_500, of_reset] = told(
        caplog,
        status(400, "cannot read: MY PROMPT"),
        status(500, "cannot read: MY PROMPT"),
        UpstreamError("reset", "400, message: MY ANSWER"),
    )
    assert of_500 == "upstream up failed: status 500; request req_1"
    assert of_reset == "upstream up failed: reset; request req_2"


def test_more_of_the_same_is_only_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [status(429, "x" * 5000)] * 5
    assert [len(line) < 400 for line in told(caplog, *errors)] == [True]
    caplog.clear()
    it = Complaints()
    with caplog.at_level(logging.WARNING):
        it.note("a", UP, errors[0])
        it.note("b", UP, errors[0])
        monkeypatch.setattr(complaints, "PAUSE_S", 0.0)
        it.note("c", UP, errors[0])
    first, last = (record.getMessage() for record in caplog.records)
    assert first.endswith("; request a")
    assert last.endswith("; request c, and 1 more before it")
