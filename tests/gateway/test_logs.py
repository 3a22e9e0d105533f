"""A log line is one line of JSON, whatever was put into it; and the names of requests."""

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.logs import JsonFormatter, log_request
from gateway.masks import clean
from gateway.trace import request_id


@given(st.text())
def test_a_record_stays_one_line_of_json(text: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (text,), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in json.loads(line)["message"]


@pytest.mark.parametrize(
    "secret",
    ["sk-gg-abc-0123456789abcdef", "Bearer 0123456789", "postgresql://me:0123456789@host/db"],
)
def test_secrets_do_not_pass(secret: str) -> None:
    assert "0123456789" not in clean(f"it was {secret}.")


def test_only_what_is_listed_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    scope = {
        "method": "GET",
        "path": "/\x1b[31m",
        "request_id": "r",
        "client_address": "1.2.3.4",
        "headers": [(b"authorization", b"Bearer hush")],
    }

    async def scene() -> None:
        log_request(scope, 404, 0.0123)
        await asyncio.sleep(0)

    asyncio.run(scene())
    line = json.loads(capsys.readouterr().err)
    del line["time"]
    assert line == {
        "level": "info", "logger": "glassgate.access", "message": "GET /\ufffd[31m",
        "request_id": "r", "status": 404, "ms": 12.3, "client": "1.2.3.4",
    }  # fmt: skip


@given(st.text())
def test_an_id_from_outside_is_a_plain_word_or_none(text: str) -> None:
    name = request_id(text)
    assert name == text or name.startswith("req_")
    assert name.isascii()
    assert name.isprintable()
    assert len(name) <= 128
