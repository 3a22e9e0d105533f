"""Families, labels, weights, pins and rules: which release answers, and that the answer says so."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import moves
from gateway.releases import share_of
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey, create
from gateway.store.labels import set_weights

pytestmark = pytest.mark.anyio

TWO = {
    "families": {"town": {"labels": {"production": "town-1", "canary": "town-2"}}},
    "releases": {"town-2": {"family": "town", "upstream": "up"}},
}
ME = By("me", "test")


def with_rules(*rules: dict[str, Any]) -> dict[str, Any]:
    return {**TWO, "families": {"town": {**TWO["families"]["town"], "rules": list(rules)}}}


async def served(house: Any, **more: Any) -> tuple[str, str]:
    reply = await house.chat(**more)
    assert reply.status == 200, await reply.text()
    return reply.headers["x-glassgate-release"], reply.headers["x-glassgate-picked-by"]


async def test_a_pin_by_label_by_release_and_by_header(open_house: Any) -> None:
    async with open_house(TWO) as house:
        assert await served(house) == ("town-1", "default")
        assert await served(house, model="town@canary") == ("town-2", "pin")
        assert await served(house, model="town@town-2") == ("town-2", "pin")
        header = {"x-glassgate-release": "canary"}
        assert await served(house, headers=header) == ("town-2", "pin")
        reply = await house.chat(model="town@town-1", headers=header)
        assert (reply.status, (await reply.json())["error"]["param"]) == (400, "model")


async def test_a_pin_needs_its_scope_and_a_family_its_key(open_house: Any) -> None:
    over = {
        **TWO,
        "families": {**TWO["families"], "city": {"labels": {"production": "city-1"}}},
    }
    over["releases"] = {**TWO["releases"], "city-1": {"family": "city", "upstream": "up"}}
    async with open_house(over) as house:
        new = NewKey(name="k", families=("town",))
        _, key = await house.state.store.write(create, ME, OPERATOR, new)
        await house.state.mirror.refresh()
        mine = {"authorization": f"Bearer {key}"}
        assert await served(house, headers=mine) == ("town-1", "default")
        for model in ("town@canary", "city"):
            assert (await house.chat(model=model, headers=mine)).status == 403
        listed = await (await house.ask("GET", "/v1/models", headers=mine)).json()
        assert [it["id"] for it in listed["data"]] == ["town", "town@town-1", "town@town-2"]


async def test_shares_hold_and_users_stay(open_house: Any) -> None:
    async with open_house(TWO) as house:
        await house.state.store.write(set_weights, ME, "town", {"production": 3, "canary": 1})
        await house.state.mirror.refresh()
        seen = {f"u{i}": await served(house, user=f"u{i}") for i in range(40)}
        shares = Counter(release for release, _ in seen.values())
        assert 3 <= shares["town-2"] <= 20
        assert {how for _, how in seen.values()} == {"sticky"}
        for user in ("u0", "u1", "u2"):
            assert await served(house, user=user) == seen[user]
        assert (await served(house, headers={"x-session-id": "u0"}))[0] == seen["u0"][0]
        assert (await served(house))[1] == "weight"


async def test_a_promotion_and_a_rollback_are_one_move_each(open_house: Any) -> None:
    async with open_house(TWO) as house:
        store, config = house.state.store, house.state.setup.config
        await store.write(moves.promote, ME, config, "town", "production", "town-2")
        await house.state.mirror.refresh()
        assert (await served(house))[0] == "town-2"
        await store.write(moves.rollback, ME, config, "town", "production")
        await house.state.mirror.refresh()
        assert (await served(house))[0] == "town-1"


async def test_rules_pick_by_length_and_by_hint(open_house: Any) -> None:
    rules = ({"hint": "cheap", "use": "canary"}, {"prompt_above": 100, "use": "town-2"})
    async with open_house(with_rules(*rules)) as house:
        assert await served(house) == ("town-1", "default")
        assert await served(house, headers={"x-glassgate-hint": "cheap"}) == ("town-2", "rule")
        long = [{"role": "user", "content": "word " * 200}]
        assert await served(house, messages=long) == ("town-2", "rule")


SHARES = st.dictionaries(
    st.sampled_from(["a", "b", "production"]), st.floats(0.01, 100), min_size=1
)


@given(SHARES, st.floats(0, 1, exclude_max=True))
def test_a_canary_that_grows_keeps_who_it_has(weights: dict[str, float], point: float) -> None:
    owner = share_of(weights, point)
    assert owner in weights
    if owner != "production" and sorted(weights)[0] == owner:
        assert share_of({**weights, owner: weights[owner] * 2}, point) == owner
