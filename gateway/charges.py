"""What a request may cost at most, and what it did cost: every attempt as it was used.

Tokens are the upstream's own count where it gave one. An attempt that broke off is charged for its
prompt once the upstream had accepted it, and for a token per piece that came.
"""

import datetime
from collections.abc import Iterable
from typing import Any

from gateway import money
from gateway.call import Call, Usage
from gateway.counting import estimate
from gateway.routing.attempts import Attempt
from gateway.routing.frames import count
from gateway.upstream import Target


def worst(targets: Iterable[Target], prompt: int, completion: int) -> int:
    """Nano-dollars: the dearest of the targets, once."""
    return max(cost_of(it, Usage(prompt, 0, completion)) for it in targets)


def cost_of(target: Target, used: Usage) -> int:
    """Nano-dollars, at today's price."""
    today = datetime.datetime.now(datetime.UTC).date()
    price = money.price_on(today, target.prices)
    return money.cost(price, used.prompt, used.cached, used.completion)


def charge(call: Call) -> int:
    """Write usage and cost of all attempts into `call`; the nano-dollars they cost."""
    total = 0
    for attempt in call.attempts:
        used = _used(call, attempt)
        total += cost_of(attempt.target, used)
        if used.prompt or used.completion:
            call.usage = _sum(call.usage, used)
    call.cost = total
    return total


def _used(call: Call, attempt: Attempt) -> Usage:
    if attempt.usage is not None:
        return read_usage(attempt.usage)
    if attempt.status is None or attempt.status >= 300:
        return Usage()
    is_counted = bool(attempt.target.tokenizer)
    return Usage(
        prompt=estimate(call.bound_tokens, is_counted),
        completion=attempt.num_chunks,
        source="counted" if is_counted else "estimated",
    )


def read_usage(said: dict[str, Any]) -> Usage:
    """OpenAI's usage object; what is missing or no number counts nothing."""
    details = said.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    numbers = (said.get("prompt_tokens"), cached, said.get("completion_tokens"))
    prompt, cached, completion = map(count, numbers)
    return Usage(prompt, cached, completion, "upstream")


def _sum(a: Usage, b: Usage) -> Usage:
    if not (a.prompt or a.completion):
        return b
    weakest = max(a.source, b.source, key=("upstream", "counted", "estimated").index)
    return Usage(a.prompt + b.prompt, a.cached + b.cached, a.completion + b.completion, weakest)
