"""What does it cost, why, and what will the month have cost?

A request costs its prompt, less what was cached, plus its answer, each at its own price. So the
bill has few drivers: how much is put in front of the question, how long answers may be, what is
cached, and which model is asked at all. And the month's end can be told long before, with the
honesty of an interval. Prices, costs and the forecast are those of the gateway's ledger.
"""

import datetime
import random
from decimal import Decimal
from functools import cache

from gateway.config import Price
from gateway.forecast import Forecast, forecast
from gateway.money import NANO, cost
from lessons.story import Claim, Exercise, Result

LARGE = Price(prompt=Decimal("2.50"), cached=Decimal("1.25"), completion=Decimal("10"))
SMALL = Price(prompt=Decimal("0.15"), cached=Decimal("0.075"), completion=Decimal("0.60"))
MILLION = 1_000_000  # requests
NOW = datetime.datetime(2026, 6, 16, tzinfo=datetime.UTC)  # a Tuesday; the month has 30 days


def dollars(prompt: int, cached: int, completion: int, price: Price = LARGE) -> float:
    """A million requests of so many tokens.

    >>> dollars(1000, 0, 100, SMALL)
    210.0
    """
    return cost(price, prompt, cached, completion) * MILLION / NANO


BASE = dollars(1500, 0, 200)  # an instruction of 600 tokens, six passages, a question


def saved(after: float) -> float:
    """As a share of the base."""
    return 1 - after / BASE


def routed(share: float) -> float:
    """So many requests are easy, and go to the small model."""
    return share * dollars(1500, 0, 200, SMALL) + (1 - share) * BASE


def kept(hits: float) -> float:
    """So many are answered by the answer cache."""
    return (1 - hits) * BASE


def days(seed: int, until: datetime.date) -> dict[datetime.date, int]:
    """What each day from 1 May on costs [nano-dollars]: weekends a third, all days by chance."""
    rng = random.Random(seed)  # noqa: S311 - nobody gains by guessing it
    day, spent = datetime.date(2026, 5, 1), {}
    while day <= until:
        usual = 30 if day.weekday() >= 5 else 100
        spent[day] = round(usual * rng.lognormvariate(0, 0.3) * NANO)
        day += datetime.timedelta(days=1)
    return spent


def foretold(seed: int) -> Forecast:
    return forecast(days(seed, NOW.date() - datetime.timedelta(days=1)), NOW)


def truth(seed: int) -> int:
    """What the month did cost."""
    spent = days(seed, datetime.date(2026, 6, 30))
    return sum(it for day, it in spent.items() if day.month == 6)


@cache
def coverage(num_months: int = 60) -> float:
    """The share of months that ended inside their interval of 90 %."""
    inside = 0
    for seed in range(num_months):
        told = foretold(seed)
        inside += (told.low or 0) <= truth(seed) <= (told.high or 0)
    return inside / num_months


@cache
def error(num_months: int = 60) -> float:
    """Mean error of the forecast, as a share."""
    pairs = [(foretold(seed).expected, truth(seed)) for seed in range(num_months)]
    return sum(abs(told - was) / was for told, was in pairs) / num_months


def run() -> Result:
    return {
        "dollars a million requests": Claim(BASE, 5750, 5750),
        "saved by a prefix cache for 600 tokens": Claim(saved(dollars(1500, 600, 200)), 0.1, 0.15),
        "saved by half as many passages": Claim(saved(dollars(1100, 0, 200)), 0.15, 0.2),
        "saved by answers half as long": Claim(saved(dollars(1500, 0, 100)), 0.15, 0.2),
        "saved by an answer cache that hits 20 %": Claim(saved(kept(0.2)), 0.199, 0.201),
        "saved by asking the small model for 60 %": Claim(saved(routed(0.6)), 0.55, 0.6),
        "months inside their interval of 90 %": Claim(coverage(), 0.8, 1),
        "mean error at half of the month": Claim(error(), 0, 0.1),
    }


EXERCISES = (
    Exercise(
        "Prompts are cached at half the price. If every prompt were cached whole, what share of "
        "the base is the most that it can save, in per cent?",
        33,
        lambda: round(100 * saved(dollars(1500, 1500, 200))),
    ),
    Exercise(
        "$100 a working day, $30 a day of a weekend: what does June 2026 cost (22 and 8 of them)?",
        2440,
        lambda: sum(
            30 if datetime.date(2026, 6, day).weekday() >= 5 else 100 for day in range(1, 31)
        ),
    ),
    Exercise(
        "Usage doubles in the second half of the month. Does the forecast at its middle know?",
        False,
        lambda: foretold(0).high > 1.5 * truth(0),  # type: ignore[operator]
    ),
)
