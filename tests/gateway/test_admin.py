"""The admin API through a running gateway: what it changes is in force when it has answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from gateway import admin, app
from gateway.store import keys, teams
from gateway.store.audit import By
from gateway.store.keys import OPERATOR, NewKey

CONFIG = {
    "releases": {"town-2": {"family": "town", "upstream": "up"}},
    "families": {"hamlet": {"labels": {"production": "hamlet-1"}}},
    "limits": {"small": {"requests_per_minute": 10}},
}
CONFIG["releases"]["hamlet-1"] = {"family": "hamlet", "upstream": "up"}


class Admin:
    """Requests with an admin's key."""

    def __init__(self, house: Any, text: str) -> None:
        self.house = house
        self.headers = {"authorization": f"Bearer {text}"}

    async def __call__(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        url = f"{self.house.url}/admin/{path}"
        async with self.house.http.request(method, url, headers=self.headers, **more) as reply:
            body = await reply.read()
            assert reply.status == status, body
            return await reply.json() if reply.content_type == "application/json" else body.decode()

    async def refused(self, method: str, path: str, status: int, **more: Any) -> tuple[str, str]:
        error = (await self(method, path, status, **more))["error"]
        return error["param"], error["code"]


async def admit(house: Any, **fields: Any) -> Admin:
    new = NewKey(**{"name": "root", "scopes": tuple(keys.SCOPES), **fields})
    _, text = await house.state.store.write(keys.create, By("test"), OPERATOR, new)
    await house.state.mirror.refresh()
    return Admin(house, text)


Scene = Callable[[Admin], Awaitable[None]]


@pytest.fixture
def run(open_house: Any) -> Callable[[Scene], None]:
    def go(scene: Scene) -> None:
        async def main() -> None:
            async with open_house(CONFIG) as house:
                await scene(await admit(house))

        asyncio.run(main())

    return go


def test_every_route_here_needs_the_scope_admin(open_house: Any) -> None:
    assert all(door.scope == "admin" for door in app.DOORS if door.path.startswith("/admin/"))

    async def main() -> None:
        async with open_house(CONFIG) as house:
            for method, path, _ in admin.ROUTES:
                async with house.http.request(method, house.url + path) as reply:
                    assert reply.status == 403, path  # even on loopback and without any key

    asyncio.run(main())


def test_the_life_of_a_key(run: Any) -> None:
    async def scene(admin: Admin) -> None:
        await admin("PUT", "teams/search", json={"limits": "small"})
        made = await admin(
            "POST", "keys", 201, json={"name": "alice", "team": "search", "families": ["town"]}
        )
        client = Admin(admin.house, made.pop("key"))

        async def chat(model: str) -> int:
            reply = await admin.house.chat(model=model, headers=client.headers)
            return int(reply.status)

        assert (await chat("town"), await chat("hamlet")) == (200, 403)
        listed = await admin("GET", "keys", params={"team": "search"})
        assert listed["data"] == [made | {"last_used_at": None}]
        assert "hash" not in made

        rotated = await admin("POST", f"keys/{made['id']}/rotate", json={"overlap_s": 0})
        assert await chat("town") == 401
        client = Admin(admin.house, rotated["key"])
        assert await chat("town") == 200
        revoked = await admin("DELETE", f"keys/{made['id']}")
        assert revoked["state"] == "revoked"
        assert await chat("town") == 401
        told = [it["action"] for it in (await admin("GET", "audit"))["data"]]
        assert told[:4] == ["key.revoke", "key.rotate", "key.create", "team.put"]

    run(scene)


def test_mistakes_are_named(run: Any) -> None:
    async def scene(admin: Admin) -> None:
        for path, body, status, param in (
            ("keys", {"name": "x", "scopes": ["fly"]}, 400, "scopes"),
            ("keys", {"name": ""}, 400, "name"),
            ("keys", {"name": "x", "colour": "red"}, 400, "colour"),
            ("keys", {"name": "a\0b"}, 400, "name"),
            ("keys", {"name": "x", "days": -1}, 400, "days"),
            ("keys", {"name": "x", "limits": "none"}, 400, "limits"),
            ("keys", {"name": "x", "families": ["moon"]}, 404, "families"),
            ("keys", {"name": "x", "team": "nobody"}, 400, "team"),
            ("keys/nobody/rotate", {}, 404, "id"),
            ("releases/promote", {"family": "town", "release": "town-2"}, 400, "why"),
            ("releases/promote", {"family": "town", "release": "x", "why": "y"}, 404, "release"),
            ("releases/rollback", {"family": "moon", "why": "y"}, 404, "family"),
        ):
            assert (await admin.refused("POST", path, status, json=body))[0] == param, path
        for path, params, param in (
            ("keys", {"limit": "many"}, "limit"),
            ("audit", {"before": "x"}, "before"),
            ("usage", {"by": "user"}, "by"),
            ("usage", {"since": "yesterday"}, "since"),
            ("usage/steps", {"since": "0", "step": "60"}, "count"),
            ("usage/steps", {"since": "0", "step": "60", "count": "100000"}, "count"),
            ("usage/steps", {"since": "0", "step": "0.5", "count": "2"}, "step"),
        ):
            assert (await admin.refused("GET", path, 400, params=params))[0] == param
        assert await admin.refused("PUT", "teams/x", 400, data=b"{") == (None, "invalid_json")

    run(scene)


def test_a_silent_store_is_not_the_clients_fault(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("gone"))

    async def scene(admin: Admin) -> None:
        monkeypatch.setattr(teams, "all_teams", fail)
        assert (await admin.refused("GET", "teams", 503))[1] == "unavailable"

    run(scene)


def test_a_limited_admin_grants_no_more_than_it_has(open_house: Any) -> None:
    async def main() -> None:
        async with open_house(CONFIG) as house:
            limited = await admit(house, scopes=("admin", "chat"), families=("town",))
            for body, param in (
                ({"name": "x", "scopes": ["pin"], "families": ["town"]}, "scopes"),
                ({"name": "x", "scopes": ["chat"]}, "families"),
            ):
                assert (await limited.refused("POST", "keys", 403, json=body))[0] == param

    asyncio.run(main())


def test_promote_and_roll_back(run: Any) -> None:
    async def scene(admin: Admin) -> None:
        async def serving() -> str:
            reply = await admin.house.chat(headers=admin.headers)
            return str(reply.headers["x-glassgate-release"])

        assert await serving() == "town-1"
        move = {"family": "town", "why": "it is faster"}
        moved = await admin("POST", "releases/promote", json={**move, "release": "town-2"})
        assert (moved["release"], moved["previous"]) == ("town-2", "town-1")
        assert await serving() == "town-2"
        await admin("POST", "releases/rollback", json=move)
        assert await serving() == "town-1"
        told = await admin.refused("POST", "releases/rollback", 400, json=move)
        assert told == ("label", "nothing_to_roll_back")
        (last, *_) = (await admin("GET", "audit", params={"subject": "town@production"}))["data"]
        assert (last["before"], last["after"], last["why"]) == ("town-2", "town-1", "it is faster")
        assert last["actor"].startswith("key:")

        weights = {"family": "town", "weights": {"town-2": 1.0}, "why": "all of it"}
        await admin("PUT", "releases/weights", json=weights)
        assert await serving() == "town-2"
        shares = {it["release"]: it["share"] for it in (await admin("GET", "releases"))["data"]}
        assert shares == {"town-1": 0, "town-2": 1, "hamlet-1": 1}

    run(scene)


def test_usage_and_budgets(run: Any) -> None:
    async def scene(admin: Admin) -> None:
        for _ in range(3):
            await admin.house.chat(headers=admin.headers)
        await admin.house.state.ledger.flush()
        (line,) = (await admin("GET", "usage", params={"by": "family"}))["data"]
        assert (line["name"], line["requests"], line["cost"]) == ("town", 3, "0")
        text = await admin("GET", "usage", params={"by": "release", "format": "csv"})
        assert text.splitlines()[1].startswith("town-1,")
        hour = {"since": int(time.time()) - 1800, "step": 3600, "count": 1, "team": ""}
        (line,) = (await admin("GET", "usage/steps", params=hour))["data"]
        assert (line["requests"], line["cost"]) == (3, "0")
        others = await admin("GET", "usage/steps", params=hour | {"team": "search"})
        assert others["data"] == []
        page = await admin("GET", "requests", params={"limit": 2})
        rest = await admin("GET", "requests", params={"limit": 2, "before": page["next"]})
        assert (len(page["data"]), len(rest["data"]), rest["next"]) == (2, 1, None)
        assert (await admin("GET", "usage/forecast"))["so_far"] == "0"

        new = {"subject": "family:town", "period": "day", "soft": "1.5", "hard": "2"}
        assert await admin("PUT", "budgets", json=new) == new | {"spent": "0"}
        assert (await admin("GET", "budgets"))["data"] == [new | {"spent": "0"}]
        assert "family:town" in admin.house.state.mirror.budgets
        for subject, status in (("team:zz", 400), ("key:nope", 404), ("family:nobody", 404)):
            refused = await admin("PUT", "budgets", status, json=new | {"subject": subject})
            assert refused["error"]["param"] == "subject"
        gone = {"subject": "team:zz", "period": "day"}  # without bounds: removed
        assert (await admin("PUT", "budgets", json=gone))["hard"] is None
        await admin("DELETE", "teams/none", 404)

    run(scene)
