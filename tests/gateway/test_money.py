"""Money is exact: nothing is lost between a price, a request and a sum."""

import datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import money
from gateway.config import Price

prices = st.decimals(0, 1000, places=4)
tokens = st.integers(0, 10**7)


@given(prices, st.none() | prices, prices, tokens, tokens, tokens)
def test_cost_is_the_exact_product_rounded_once(
    prompt_price: Decimal,
    cached_price: Decimal | None,
    completion_price: Decimal,
    prompt: int,
    cached: int,
    completion: int,
) -> None:
    price = Price(prompt=prompt_price, cached=cached_price, completion=completion_price)
    cached = min(cached, prompt)
    exact = (
        (prompt - cached) * Fraction(prompt_price)
        + cached * Fraction(prompt_price if cached_price is None else cached_price)
        + completion * Fraction(completion_price)
    ) * 1000  # nano-dollars: 10⁹ to the dollar, 10⁶ tokens to the price
    assert money.cost(price, prompt, cached, completion) == round(exact)


@given(st.integers(0, money.MAX))
def test_what_is_shown_is_what_is_kept(nano: int) -> None:
    text = money.show(nano)
    assert money.to_nano(Decimal(text)) == nano
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))


def test_more_cached_than_prompt_is_not_believed() -> None:
    price = Price(prompt=Decimal(1), cached=Decimal(0))
    assert money.cost(price, 5, 9, 0) == 0
    assert money.cost(None, 5, 0, 5) == 0


def test_the_price_of_the_day() -> None:
    old = Price(since=datetime.date(2026, 1, 1), prompt=Decimal(2))
    new = Price(since=datetime.date(2026, 3, 1), prompt=Decimal(1))
    for day, price in (
        (datetime.date(2025, 12, 31), None),
        (datetime.date(2026, 1, 1), old),
        (datetime.date(2026, 2, 28), old),
        (datetime.date(2026, 3, 1), new),
    ):
        assert money.price_on(day, [new, old]) == price


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity"])
def test_no_amount(amount: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        money.to_nano(Decimal(amount))
