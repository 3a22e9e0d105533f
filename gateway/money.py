"""Money: dated prices in, whole nano-dollars out.

One request costs a whole number of nano-dollars (10⁻⁹ US dollars), rounded once, half to even; all
sums after that are exact. No floats, and no knowledge of where a price or a token count came from.
"""

import datetime
import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from functools import lru_cache

from gateway.config import Price

NANO = 10**9
MAX = 2**53  # nine million dollars; a thousand of these can be summed in 64 bits


def to_nano(dollars: Decimal) -> int:
    """Raises ValueError for what is no amount: below zero, or no number."""
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{dollars} is no amount of money")
    return min(MAX, int((dollars * NANO).to_integral_value(ROUND_HALF_EVEN)))


def show(nano: int) -> str:
    """Dollars, exact and plain: 2500000 → "0.0025"."""
    text = f"{Decimal(nano) / NANO:.9f}"
    return text.rstrip("0").rstrip(".")


def price_on(day: datetime.date, prices: Sequence[Price]) -> Price | None:
    """The youngest price that was valid on `day`."""
    valid = None
    for price in prices:
        if price.since <= day and (valid is None or price.since > valid.since):
            valid = price
    return valid


def cost(price: Price | None, prompt: int, cached: int, completion: int) -> int:
    """Nano-dollars for so many tokens; `cached` is the part of `prompt` that was not computed."""
    if price is None:
        return 0
    cached = min(cached, prompt)
    (per_prompt, per_cached, per_completion), scale = _rates(price)
    total = (prompt - cached) * per_prompt + cached * per_cached + completion * per_completion
    nano, rest = divmod(total, scale)
    return min(MAX, nano + (2 * rest > scale or (2 * rest == scale and nano % 2 == 1)))


@lru_cache(maxsize=1024)
def _rates(price: Price) -> tuple[tuple[int, ...], int]:
    """Whole nano-dollars for `scale` prompt, cached and completion tokens: numbers that are fast
    and exact to multiply."""
    cached = price.prompt if price.cached is None else price.cached
    rates = [Fraction(it) * NANO / 10**6 for it in (price.prompt, cached, price.completion)]
    scale = math.lcm(*(rate.denominator for rate in rates))
    return tuple(int(rate * scale) for rate in rates), scale
