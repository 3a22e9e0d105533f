"""A change is noticed by another process' store, and only what changed."""

import asyncio
from contextlib import aclosing

import pytest
import sqlalchemy as sa

from gateway.store import Store, changes


def test_versions_count_up_for_each_topic(store: Store) -> None:
    with store.begin(write=True) as connection:
        assert changes.note(connection, "keys") == 1
        assert changes.note(connection, "labels") == 1
        assert changes.note(connection, "keys") == 2
        assert changes.versions(connection) == {"keys": 2, "labels": 1}


def test_what_moved_is_told_once(store: Store, url: str) -> None:
    other = Store.open(url)

    async def scene() -> list[set[str]]:
        seen = []
        await store.write(changes.note, "keys")
        async with aclosing(changes.follow(store)) as moved:
            seen.append(await anext(moved))  # what moved before
            waiting = asyncio.ensure_future(anext(moved))
            await other.write(changes.note, "labels")
            seen.append(await waiting)
            await other.write(changes.note, "keys")
            seen.append(await anext(moved))
        return seen

    try:
        assert asyncio.run(scene()) == [{"keys"}, {"labels"}, {"keys"}]
    finally:
        other.close()


def test_a_rolled_back_change_is_none(store: Store) -> None:
    def fail(connection: sa.Connection) -> None:
        changes.note(connection, "keys")
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(store.write(fail))
    with store.begin() as connection:
        assert changes.versions(connection) == {}
