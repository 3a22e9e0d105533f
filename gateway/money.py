"""Money: dated prices in, whole nano-dollars out.

One request costs a whole number of nano-dollars (10⁻⁹ US dollars), rounded once, half to even; all
sums after that are exact. No floats, and no knowledge of where a price or a token count came from.
"""

import datetime
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal

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
    return max((p for p in prices if p.since <= day), key=lambda p: p.since, default=None)


def cost(price: Price | None, prompt: int, cached: int, completion: int) -> int:
    """Nano-dollars for so many tokens; `cached` is the part of `prompt` that was not computed."""
    if price is None:
        return 0
    cached = min(cached, prompt)
    cached_price = price.prompt if price.cached is None else price.cached
    total = (prompt - cached) * price.prompt + cached * cached_price + completion * price.completion
    return to_nano(total / 1_000_000)
