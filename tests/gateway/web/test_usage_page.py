"""The usage page in Chromium, over a ledger with days of requests in it."""

import time
from decimal import Decimal
from typing import Any

import pytest

from gateway.store import usage
from gateway.store.audit import By
from gateway.store.teams import NewBudget, put_budget

pytestmark = [pytest.mark.anyio, pytest.mark.services]

HOUR_MS = 3_600_000
OVER = {
    "limits": {"small": {"requests_per_minute": 60, "cost_per_day": 0.5}},
    "server": {"limits": "small"},
}


def past(connection: Any) -> None:
    """Requests of the last ten days, one an hour; each tenth failed."""
    now = int(time.time() * 1000)
    rows = [
        usage.Row(
            id=f"{now - i * HOUR_MS:012x}{i:04x}",
            request_id=f"r{i}",
            started_at=now - i * HOUR_MS,
            route="chat",
            family="town",
            release="town-1",
            team="search" if i % 2 else "",
            prompt_tokens=100,
            cached_tokens=40,
            completion_tokens=20,
            cost=10_000_000,
            outcome="ok" if i % 10 else "upstream_error",
        )
        for i in range(240)
    ]
    usage.post(connection, rows)


async def sums(page: Any) -> dict[str, str]:
    await page.locator("#sums dd").first.wait_for()
    terms = await page.locator("#sums dt").all_inner_texts()
    values = await page.locator("#sums dd:not(.note)").all_inner_texts()
    return dict(zip(terms, values, strict=True))


async def test_usage_is_shown_for_an_admins_key(
    open_house: Any, visit: Any, make_key: Any, check_access: Any
) -> None:
    async with open_house(OVER) as house:
        await house.state.store.write(past)
        key = await make_key(house, "admin")
        async with visit(house, "/usage", key) as page:
            assert (await sums(page))["Requests"] == "1"
            await page.get_by_text("30 days").click()
            await page.locator("figcaption", has_text="Requests a day").wait_for()
            found = await sums(page)
            assert found["Requests"] == "240"
            assert (found["Tokens in"], found["Tokens out"]) == ("24,000", "4,800")
            assert (found["Cost"], found["Errors"]) == ("$2.40", "24")
            assert await page.locator(".plot canvas").count() == 4
            label = await page.locator("#plot-requests").get_attribute("aria-label")
            assert label.startswith("requests a day, in 30 days: at most 24")
            assert "limit" in await page.locator("#plot-cost .u-legend").inner_text()
            assert "limit" not in await page.locator("#plot-errors .u-legend").inner_text()
            await page.select_option("#by", "team")
            await page.locator("#table tbody tr", has_text="search").wait_for()
            assert await page.locator("#table tbody tr").count() == 2


def crowd(connection: Any) -> None:
    """Six thousand requests within two seconds, every third of a team, every hundredth failed."""
    now = int(time.time() * 1000)
    rows = [
        usage.Row(
            id=f"{now - i % 2000:012x}{i:04x}",
            request_id=f"r{i}",
            started_at=now - i % 2000,
            route="chat",
            team="" if i % 3 else "search",
            outcome="ok" if i % 100 else "upstream_error",
        )
        for i in range(6000)
    ]
    usage.post(connection, rows)


@pytest.mark.parametrize("how_long", ["Hour", "Day", "30 days"])
async def test_a_busy_minute_is_counted_whole(
    open_house: Any, visit: Any, make_key: Any, how_long: str
) -> None:
    async with open_house() as house:
        await house.state.store.write(crowd)
        key = await make_key(house, "admin")
        await house.ask(
            "PUT", "/admin/teams/search", json={}, headers={"authorization": f"Bearer {key}"}
        )
        async with visit(house, "/usage", key) as page:
            await page.get_by_text(how_long, exact=True).click()
            for subject, expected in (("global", "6,000"), ("team:search", "2,000")):
                await page.select_option("#subject", subject)
                await page.locator("#sums dd", has_text=expected).first.wait_for()
                assert (await sums(page))["Errors"] == ("60" if subject == "global" else "20")


async def test_whose_usage_is_chosen_and_which_limits_hold(
    open_house: Any, visit: Any, make_key: Any
) -> None:
    async with open_house(OVER) as house:
        await house.state.store.write(past)
        key = await make_key(house, "admin")
        await house.ask(
            "PUT", "/admin/teams/search", json={}, headers={"authorization": f"Bearer {key}"}
        )
        new = NewBudget(subject="team:search", period="month", soft=Decimal(1), hard=Decimal(5))
        await house.state.store.write(put_budget, By("test"), new)
        async with visit(house, "/usage", key) as page:
            await sums(page)
            limits = await page.locator(".limit").all_inner_texts()
            assert [it.split("\n")[0] for it in limits] == [
                "Requests a minute",
                "Cost a day",
                "Budget a month of team search",
            ]
            await page.select_option("#subject", "team:search")
            await page.locator(".limit", has_text="Budget a month").wait_for()
            await page.get_by_text("90 days").click()
            await page.locator("dd", has_text="in 90 days").wait_for()
            assert (await sums(page))["Requests"] == "120"
            assert await page.locator(".limit").count() == 1


async def test_who_may_not_see_it_is_told(open_house: Any, visit: Any, make_key: Any) -> None:
    async with open_house() as house:
        async with visit(house, "/usage") as page:
            await page.locator("#key-dialog").wait_for()
            assert "scope admin" in await page.locator("#key-reason").inner_text()
        async with visit(house, "/usage", await make_key(house, "infer")) as page:
            await page.locator("#notice", has_text="does not have the scope").wait_for()
            assert await page.locator("#report").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_everybody_can_read_it(
    open_house: Any, visit: Any, make_key: Any, check_access: Any, scheme: str, width: int
) -> None:
    how = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    async with open_house(OVER) as house:
        await house.state.store.write(past)
        async with visit(house, "/usage", await make_key(house, "admin"), **how) as page:
            await sums(page)
            await check_access(page)
            await page.click("#theme-button")  # the plots are drawn anew in the other colours
            await check_access(page)
