"""What a client reads about its limits: OpenAI's `x-ratelimit-*` headers and Retry-After."""

import math

from gateway.limits.rules import Grant, Kind, Refusal, duration

NAMES: dict[Kind, str] = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}
MOST = (2**63, 0, 0)  # left, more than any rule has


def rate_headers(outcome: Grant | Refusal) -> tuple[tuple[str, str], ...]:
    """Per kind the rule with the least left; for a refusal also when, if ever, to come again."""
    tightest: dict[Kind, tuple[int, int, int]] = {}
    for demand, (left, reset) in zip(outcome.demands, outcome.levels, strict=True):
        rule = demand.rule
        level = left, -reset, rule.capacity
        if rule.kind in NAMES and level < tightest.get(rule.kind, MOST):
            tightest[rule.kind] = level
    headers = []
    for kind, (left, reset, capacity) in tightest.items():
        name = NAMES[kind]
        headers += [
            (f"x-ratelimit-limit-{name}", str(capacity)),
            (f"x-ratelimit-remaining-{name}", str(left)),
            (f"x-ratelimit-reset-{name}", duration(-reset)),
        ]
    if isinstance(outcome, Refusal):
        headers += _retry(outcome)
    return tuple(headers)


def _retry(refusal: Refusal) -> list[tuple[str, str]]:
    headers = []
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(refusal.retry_after_s)))))
        # OpenAI's clients prefer it: seconds are a long time for a bucket.
        headers.append(("retry-after-ms", str(max(1, math.ceil(refusal.retry_after_s * 1000)))))
    is_spent = refusal.reason == "limited" and refusal.demand.rule.limit_class == "spend"
    if is_spent or refusal.reason == "too_large":
        headers.append(("x-should-retry", "false"))
    return headers
