"""What a client reads about its limits: OpenAI's `x-ratelimit-*` headers and Retry-After."""

import math

from gateway.limits.rules import Grant, Refusal, duration

NAMES = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}


def rate_headers(outcome: Grant | Refusal) -> tuple[tuple[str, str], ...]:
    """Per kind the rule with the least left; for a refusal also when, if ever, to come again."""
    headers = []
    for kind, name in NAMES.items():
        tightest = min(
            (
                (left, -reset, demand.rule.capacity)
                for demand, (left, reset) in zip(outcome.demands, outcome.levels, strict=True)
                if demand.rule.kind == kind
            ),
            default=None,
        )
        if tightest:
            headers += [
                (f"x-ratelimit-limit-{name}", str(tightest[2])),
                (f"x-ratelimit-remaining-{name}", str(tightest[0])),
                (f"x-ratelimit-reset-{name}", duration(-tightest[1])),
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
