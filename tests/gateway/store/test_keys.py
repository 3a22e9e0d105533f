"""The life of a key, and that nobody hands out more than he has."""

import msgspec
import pytest

from gateway.call import Principal
from gateway.errors import BadRequest, Forbidden, NotFound
from gateway.store import Store, audit, keys, teams
from gateway.store.audit import By
from gateway.store.key_format import digest, parse
from gateway.store.keys import OPERATOR, NewKey

ME = By("test", "because")


def test_a_key_is_shown_once_and_stored_as_its_hash(store: Store) -> None:
    with store.begin(write=True) as connection:
        teams.put_team(connection, ME, "search")
        new = NewKey(name="alice", team="search", scopes=("infer", "pin"), families=("a",), days=1)
        key, text = keys.create(connection, ME, OPERATOR, new)
    with store.begin() as connection:
        assert keys.find(connection, key.id) == key
        assert parse(text) == key.id
        assert key.hash == digest(text)
        assert text not in repr(key)
        assert key.expires_at == key.created_at + keys.DAY_MS
        assert keys.all_keys(connection, "search") == [key]
        assert keys.all_keys(connection, "other") == []
        assert keys.has_any(connection)
        newest = audit.entries(connection)[0]
        assert (newest.actor, newest.action, newest.subject) == ("test", "key.create", key.id)


@pytest.mark.parametrize(
    ("new", "param"),
    [
        (NewKey(name="x", scopes=("admin",)), "scopes"),
        (NewKey(name="x", scopes=("infer",)), "scopes"),
        (NewKey(name="x", scopes=("chat",), families=()), "families"),
        (NewKey(name="x", scopes=("chat",), families=("a", "c")), "families"),
        (NewKey(name="x", scopes=("chat",), families=("a",)), "days"),
        (NewKey(name="x", scopes=("chat",), families=("a",), days=3), "days"),
    ],
)
def test_no_key_grants_more_than_its_maker_has(store: Store, new: NewKey, param: str) -> None:
    with store.begin(write=True) as connection:
        limited = NewKey(name="m", scopes=("chat", "pin"), families=("a", "b"), days=2)
        maker = keys.create(connection, ME, OPERATOR, limited)[0].principal()
        with pytest.raises(Forbidden) as caught:
            keys.create(connection, ME, maker, new)
        assert caught.value.param == param
        same = NewKey(name="x", scopes=("chat",), families=("a",), days=1)
        keys.create(connection, ME, maker, same)


def test_a_route_is_part_of_infer(store: Store) -> None:
    maker = Principal(scopes=frozenset({"infer"}))
    with store.begin(write=True) as connection:
        keys.create(connection, ME, maker, NewKey(name="x", scopes=("chat", "embeddings")))
        with pytest.raises(BadRequest, match="no such scope: fly"):
            keys.create(connection, ME, maker, NewKey(name="x", scopes=("fly",)))
        with pytest.raises(BadRequest, match="no team"):
            keys.create(connection, ME, maker, NewKey(name="x", team="nobody"))


def test_rotation_overlaps_and_keeps_the_id(store: Store) -> None:
    with store.begin(write=True) as connection:
        old, old_text = keys.create(connection, ME, OPERATOR, NewKey(name="alice"))
        new, new_text = keys.rotate(connection, ME, OPERATOR, old.id, overlap_s=60)
        assert parse(new_text) == old.id
        assert (new.hash, new.old_hash) == (digest(new_text), digest(old_text))
        assert new.old_until is not None
        assert 59_000 < new.old_until - old.created_at < 70_000
        assert keys.find(connection, old.id) == new
        with pytest.raises(Forbidden):
            keys.rotate(connection, ME, Principal(scopes=frozenset({"admin"})), old.id, 0)


def test_revoked_is_for_ever(store: Store) -> None:
    with store.begin(write=True) as connection:
        key, _ = keys.create(connection, ME, OPERATOR, NewKey(name="alice"))
        revoked = keys.revoke(connection, ME, key.id)
        assert revoked.state(revoked.created_at) == "revoked"
        assert keys.revoke(connection, ME, key.id) == revoked
        assert keys.has_any(connection)
        with pytest.raises(BadRequest, match="revoked"):
            keys.rotate(connection, ME, OPERATOR, key.id, 0)
        with pytest.raises(NotFound):
            keys.revoke(connection, ME, "nobody")


def test_changes_are_found_by_version_and_use_is_no_change(store: Store) -> None:
    with store.begin(write=True) as connection:
        key, _ = keys.create(connection, ME, OPERATOR, NewKey(name="alice"))
        before = keys.last_version(connection)
        keys.touch(connection, {key.id: 2000, "unknown": 1})
        keys.touch(connection, {key.id: 1000})
        assert keys.find(connection, key.id).last_used_at == 2000
        assert keys.changed_since(connection, before) == {}
        keys.revoke(connection, ME, key.id)
        assert list(keys.changed_since(connection, before)) == [key.id]
        assert keys.find(connection, key.id).last_used_at == 2000


def test_expiry() -> None:
    key = keys.Key(
        id="a", name="a", team="", scopes=(), families=(), limits="", hash="", created_at=0
    )
    assert key.state(10**15) == "active"
    key = msgspec.structs.replace(key, expires_at=5)
    assert (key.state(4), key.state(5)) == ("active", "expired")
