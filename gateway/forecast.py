"""What the month will have cost: what was spent, plus the days that are left, drawn from the past.

The past is the last 28 whole days from the first that was used on. A day that is left is drawn from
days of its kind, working day or weekend, once both kinds were seen at least four times, else from
all. The interval is the middle 90 % of 2,000 draws, each of which first draws the past itself anew
(the bootstrap: so few days are known that they could have come out otherwise). No trend is assumed:
a month that grows ends above its forecast, and the forecast follows day by day.
"""

import datetime
import random
from collections.abc import Mapping, Sequence

import msgspec

HISTORY_DAYS = 28
MIN_DAYS = 3  # fewer say nothing of how much days differ
MIN_KIND = 4
DRAWS = 2000
DAY = datetime.timedelta(days=1)


class Forecast(msgspec.Struct, frozen=True):
    """Nano-dollars for the whole month. No `low` and `high` with less than 3 days of history."""

    month: str
    so_far: int
    expected: int
    low: int | None
    high: int | None
    days_known: int


def forecast(daily: Mapping[datetime.date, int], now: datetime.datetime) -> Forecast:
    """`daily`: nano-dollars of each UTC day that had any; `now` in UTC. Repeatable."""
    today = now.date()
    first = today.replace(day=1)
    last = (first + 32 * DAY).replace(day=1) - DAY
    so_far = sum(cost for day, cost in daily.items() if first <= day <= today)
    rest_of_today = 1 - (now - datetime.datetime.combine(today, datetime.time(), now.tzinfo)) / DAY
    month, past = f"{first:%Y-%m}", _past(daily, today)
    if len(past) < MIN_DAYS:
        days_gone = (today - first).days + 1 - rest_of_today
        at_this_rate = round(so_far / days_gone * last.day) if so_far else 0
        return Forecast(month, so_far, at_this_rate, None, None, len(past))
    left = [today + n * DAY for n in range((last - today).days + 1)]
    draws = _draws(past, left, rest_of_today)
    rests = (sum(draws) / DRAWS, draws[DRAWS // 20], draws[-DRAWS // 20])
    expected, low, high = (so_far + round(rest) for rest in rests)
    return Forecast(month, so_far, expected, low, high, len(past))


def _past(daily: Mapping[datetime.date, int], today: datetime.date) -> dict[datetime.date, int]:
    """Whole days before today, those without spend between counted as 0."""
    begin = max(min(daily, default=today), today - HISTORY_DAYS * DAY)
    days = [begin + n * DAY for n in range((today - begin).days)]
    return {day: daily.get(day, 0) for day in days}


def _draws(
    past: Mapping[datetime.date, int], left: Sequence[datetime.date], rest_of_today: float
) -> list[float]:
    """What the days left could cost, sorted; the first of them is today."""
    kinds = [[past[day] for day in past if _is_weekend(day) == kind] for kind in (False, True)]
    if min(map(len, kinds)) < MIN_KIND:
        kinds = [list(past.values())] * 2
    rng = random.Random(0)  # noqa: S311 - a forecast is no secret
    sums = []
    for _ in range(DRAWS):
        pasts = [rng.choices(costs, k=len(costs)) for costs in kinds]
        costs = [rng.choice(pasts[_is_weekend(day)]) for day in left]
        sums.append(costs[0] * rest_of_today + sum(costs[1:]))
    return sorted(sums)


def _is_weekend(day: datetime.date) -> bool:
    return day.weekday() >= 5
