"""Headers as OpenAI's clients read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import Demand, Grant, Refusal, Rule, rate_headers
from gateway.limits.rules import duration

REQUESTS = Rule("requests_per_minute", 60)
TOKENS = Rule("tokens_per_minute", 6_000)
DAY = Rule("cost_per_day", 1_000, "closed")


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (8_640, "8.64s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (90_500, "1m30.5s"),
        (3_600_000, "1h0m0s"),
    ],
)
def test_duration(ms: int, text: str) -> None:
    assert duration(ms) == text


@given(st.integers(0, 10**9))
def test_no_duration_loses_a_millisecond(ms: int) -> None:
    text, total = duration(ms), 0.0
    if text.endswith("ms"):
        assert int(text[:-2]) == ms
        return
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        number, found, rest = text.partition(unit)
        if found:
            total += float(number) * size
            text = rest
    assert round(total) == ms


def test_the_tightest_rule_of_a_kind_is_shown() -> None:
    demands = (
        Demand("key:a", REQUESTS, 1),
        Demand("global", Rule("requests_per_minute", 600), 1),
        Demand("key:a", TOKENS, 10),
        Demand("key:a", DAY, 10),
    )
    grant = Grant("g", demands, ("",) * 4, 60.0, ((59, 1_000), (3, 59_700), (0, 60_000), (0, -1)))
    assert rate_headers(grant) == (
        ("x-ratelimit-limit-requests", "600"),
        ("x-ratelimit-remaining-requests", "3"),
        ("x-ratelimit-reset-requests", "59.7s"),
        ("x-ratelimit-limit-tokens", "6000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m0s"),
    )


@pytest.mark.parametrize(
    ("rule", "reason", "retry_after_s", "expected"),
    [
        (REQUESTS, "limited", 0.2, {"retry-after": "1", "retry-after-ms": "200"}),
        (TOKENS, "limited", 6.001, {"retry-after": "7", "retry-after-ms": "6001"}),
        (TOKENS, "too_large", None, {"x-should-retry": "false"}),
        (
            DAY,
            "limited",
            60.0,
            {"retry-after": "60", "retry-after-ms": "60000", "x-should-retry": "false"},
        ),
        (DAY, "silent", 1.0, {"retry-after": "1", "retry-after-ms": "1000"}),
    ],
)
def test_a_refusal_says_when_to_come_again(
    rule: Rule, reason: str, retry_after_s: float | None, expected: dict[str, str]
) -> None:
    refusal = Refusal(Demand("k", rule, 1), reason, retry_after_s)  # type: ignore[arg-type]
    assert dict(rate_headers(refusal)) == expected
    assert "k" in refusal.message
