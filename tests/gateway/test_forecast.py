"""The forecast's interval holds what comes, and one who knows too little says so."""

import datetime
import random

from gateway.forecast import forecast

NOW = datetime.datetime(2026, 6, 16, 0, 0, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def days(first: int, last: int) -> list[datetime.date]:
    """By their distance from today."""
    return [NOW.date() + n * DAY for n in range(first, last + 1)]


def test_a_steady_spend_is_known_exactly() -> None:
    daily = dict.fromkeys(days(-28, -1), 100)
    found = forecast(daily, NOW)
    assert (found.month, found.so_far, found.days_known) == ("2026-06", 1500, 28)
    assert (found.low, found.expected, found.high) == (3000, 3000, 3000)


def test_weekends_are_their_own_kind() -> None:
    daily = {day: 0 if day.weekday() >= 5 else 100 for day in days(-28, -1)}
    found = forecast(daily, NOW)
    working_days = sum(day.weekday() < 5 for day in days(-15, 14))
    assert found.low == found.expected == found.high == 100 * working_days


def test_what_is_left_of_today_counts_in_part() -> None:
    daily = dict.fromkeys(days(-28, -1), 100) | {NOW.date(): 70}
    assert forecast(daily, NOW + DAY * 3 / 4).expected == 1500 + 70 + 25 + 1400


def test_too_little_history_gives_no_interval() -> None:
    found = forecast({NOW.date() - DAY: 100, NOW.date(): 20}, NOW + DAY / 2)
    assert (found.low, found.high, found.days_known) == (None, None, 1)
    assert found.expected == round(120 / 15.5 * 30)
    assert forecast({}, NOW).expected == 0


def test_the_interval_covers_what_comes() -> None:
    covered = 0
    for seed in range(60):
        rng = random.Random(seed)
        spend = {day: int(rng.lognormvariate(10, 0.5)) for day in days(-28, 14)}
        past = {day: cost for day, cost in spend.items() if day < NOW.date()}
        found = forecast(past, NOW)
        truth = sum(cost for day, cost in spend.items() if day.month == 6)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered >= 45  # 54 are due at 90 %; fewer than 45 have a chance of 1 in 2,000
