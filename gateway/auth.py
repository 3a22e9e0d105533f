"""Who calls: from the Authorization header to a Principal, and what a Principal may do.

A mistyped key is refused by its checksum, an unknown one by its id, a wrong one by comparing
SHA-256 in constant time. Where no key was ever made, whoever comes over loopback may do everything
but administer. How a key lives is `store.keys`'s.
"""

from collections.abc import Mapping

from gateway.call import Principal
from gateway.errors import Forbidden, Unauthenticated
from gateway.store.key_format import digest, is_same, parse
from gateway.store.keys import SCOPES, Key, is_allowed
from gateway.store.mirror import Mirror
from gateway.store.rows import now_ms

LOCAL = Principal(scopes=SCOPES - {"admin"})


class Authenticator:
    """`config_keys` are the keys that the config file names: digest → name."""

    def __init__(self, mirror: Mirror, config_keys: Mapping[str, str]) -> None:
        self._keys = mirror.keys
        self._config_keys = config_keys

    async def authenticate(self, authorization: str, is_loopback: bool) -> Principal:
        """`authorization` is the header's value, or "". Raises Unauthenticated, Unavailable."""
        if is_loopback and self._keys.is_empty:
            return LOCAL  # whatever was sent: OpenAI's clients cannot send nothing
        kind, _, text = authorization.partition(" ")
        if kind.lower() != "bearer" or not text.strip():
            raise Unauthenticated("send your key as 'Authorization: Bearer sk-gg-…'")
        key = await self._find(text.strip())
        self._keys.used(key.id, now_ms())
        return key.principal()

    async def _find(self, text: str) -> Key:
        sent = digest(text)
        key_id = self._config_keys.get(sent) or parse(text)
        if key_id is None:
            raise Unauthenticated("this is no key of this gateway, or it has a typo")
        key = await self._keys.get(key_id)
        now = now_ms()
        if key is None or not _opens(key, sent, now):
            raise Unauthenticated("there is no such key")
        if (state := key.state(now)) != "active":
            raise Unauthenticated(f"key {key.id} is {state}", code=f"{state}_api_key")
        return key


def _opens(key: Key, sent: str, now: int) -> bool:
    """Both hashes are compared, whichever fits, so that the time tells nothing."""
    is_new = is_same(sent, key.hash)
    is_old = is_same(sent, key.old_hash or key.hash) and now < (key.old_until or 0)
    return is_new or is_old


def require(principal: Principal, scope: str) -> None:
    """Raises Forbidden unless the principal has the scope."""
    if not is_allowed(principal.scopes, scope):
        raise Forbidden(f"this key does not have the scope {scope!r}", code="missing_scope")


def require_family(principal: Principal, family: str) -> None:
    """Raises Forbidden unless the principal may use the family."""
    if principal.families and family not in principal.families:
        raise Forbidden(f"this key may not use {family!r}", param="model", code="model_not_allowed")
