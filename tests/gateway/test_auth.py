"""Who comes in, who does not, and with which words."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import LOCAL, Authenticator, require, require_family
from gateway.call import Principal
from gateway.errors import Forbidden, Unauthenticated
from gateway.store import Store, keys
from gateway.store.audit import By
from gateway.store.key_format import digest, mint
from gateway.store.keys import OPERATOR, SCOPES, NewKey
from gateway.store.mirror import Mirror
from gateway.store.rows import now_ms

ME = By("test")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(f"sqlite:///{tmp_path / 'glassgate.db'}")
    yield opened
    opened.close()


Scene = Callable[[Authenticator], Coroutine[Any, Any, None]]


def run(store: Store, scene: Scene, config_keys: dict[str, str] | None = None) -> None:
    async def main() -> None:
        await scene(Authenticator(await Mirror.open(store), config_keys or {}))

    asyncio.run(main())


async def refusal(auth: Authenticator, sent: str, is_loopback: bool = True) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await auth.authenticate(sent, is_loopback)
    return caught.value


def make(store: Store, **fields: Any) -> tuple[keys.Key, str]:
    with store.begin(write=True) as connection:
        return keys.create(connection, ME, OPERATOR, NewKey(name="alice", **fields))


def test_without_any_key_loopback_may_do_all_but_administer(store: Store) -> None:
    async def scene(auth: Authenticator) -> None:
        assert await auth.authenticate("", True) == LOCAL
        assert LOCAL.scopes == SCOPES - {"admin"}
        await refusal(auth, "", is_loopback=False)
        # OpenAI's clients must send one, whatever it is.
        assert await auth.authenticate("Bearer unused", True) == LOCAL
        await refusal(auth, "Bearer nonsense", is_loopback=False)

    run(store, scene)


def test_a_key_opens_and_closes_the_open_door(store: Store) -> None:
    key, text = make(store, families=("town",), scopes=("chat",))

    async def scene(auth: Authenticator) -> None:
        assert await auth.authenticate(f"Bearer {text}", False) == key.principal()
        assert await auth.authenticate(f"bearer  {text} ", False) == key.principal()
        assert (await refusal(auth, "")).code == "invalid_api_key"

    run(store, scene)


def test_even_a_revoked_key_closes_the_open_door(store: Store) -> None:
    key, text = make(store)
    with store.begin(write=True) as connection:
        keys.revoke(connection, ME, key.id)

    async def scene(auth: Authenticator) -> None:
        await refusal(auth, "")
        assert (await refusal(auth, f"Bearer {text}")).code == "revoked_api_key"

    run(store, scene)


def test_wrong_keys(store: Store) -> None:
    key, text = make(store)
    _, same_id = mint(key.id)
    _, unknown = mint()

    async def scene(auth: Authenticator) -> None:
        assert "typo" in (await refusal(auth, f"Bearer {text[:-1]}!")).message
        for wrong in (same_id, unknown):
            assert (await refusal(auth, f"Bearer {wrong}")).message == "there is no such key"
        for header in (text, f"Basic {text}", "Bearer", "Bearer  "):
            assert "Authorization" in (await refusal(auth, header)).message

    run(store, scene)


def test_an_expired_key_says_so(store: Store) -> None:
    _, text = make(store, days=1e-9)

    async def scene(auth: Authenticator) -> None:
        assert (await refusal(auth, f"Bearer {text}")).code == "expired_api_key"

    run(store, scene)


@pytest.mark.parametrize("overlap_s", [60.0, 0.0])
def test_the_old_secret_lives_as_long_as_the_overlap(store: Store, overlap_s: float) -> None:
    key, old = make(store)
    with store.begin(write=True) as connection:
        _, new = keys.rotate(connection, ME, OPERATOR, key.id, overlap_s)

    async def scene(auth: Authenticator) -> None:
        assert (await auth.authenticate(f"Bearer {new}", False)).key_id == key.id
        if overlap_s:
            assert (await auth.authenticate(f"Bearer {old}", False)).key_id == key.id
        else:
            await refusal(auth, f"Bearer {old}")

    run(store, scene)


def test_a_key_of_the_config_may_look_like_anything(store: Store) -> None:
    key = keys.Key(
        id="alice",
        name="alice",
        team="t",
        scopes=("infer",),
        families=(),
        limits="",
        hash=digest("open sesame"),
        created_at=now_ms(),
    )
    with store.begin(write=True) as connection:
        keys.insert_key(connection, key)

    async def scene(auth: Authenticator) -> None:
        found = await auth.authenticate("Bearer open sesame", False)
        assert (found.key_id, found.team) == ("alice", "t")
        await refusal(auth, "Bearer open sesame!")

    run(store, scene, {digest("open sesame"): "alice"})


def test_use_is_noted(store: Store) -> None:
    key, text = make(store)

    async def scene(auth: Authenticator) -> None:
        before = now_ms()
        await auth.authenticate(f"Bearer {text}", False)
        await auth._keys.flush()
        used = (await store.read(keys.find, key.id)).last_used_at
        assert used is not None
        assert used >= before

    run(store, scene)


def test_scopes_and_families() -> None:
    who = Principal(scopes=frozenset({"infer"}), families=frozenset({"town"}))
    require(who, "chat")
    require_family(who, "town")
    require_family(Principal(), "anything")
    for scope in ("admin", "pin", "metrics"):
        with pytest.raises(Forbidden) as caught:
            require(who, scope)
        assert caught.value.code == "missing_scope"
    with pytest.raises(Forbidden):
        require(Principal(scopes=frozenset({"chat"})), "embeddings")
    with pytest.raises(Forbidden):
        require_family(who, "country")
