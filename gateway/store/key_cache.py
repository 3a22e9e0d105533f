"""Keys as one process remembers them, so that a request with a known key asks no database.

Bounded, the least recently used go first. A change of a key anywhere drops it here within a second;
ids that do not exist are remembered too, for seconds.
"""

import asyncio

from cachetools import LRUCache, TTLCache

from gateway.errors import Unavailable
from gateway.store import keys
from gateway.store.engine import Store
from gateway.store.keys import Key

KNOWN = 100_000  # keys, about 700 bytes each
UNKNOWN = 10_000  # ids
UNKNOWN_S = 5.0
LOOK_UPS = 256  # at once; beyond them callers are told to come back
LOOK_UP_S = 2.0


class KeyCache:
    """`get` on the request path, `refresh` when the topic "keys" moved, `flush` now and then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: LRUCache[str, Key] = LRUCache(KNOWN)
        self._unknown: TTLCache[str, None] = TTLCache(UNKNOWN, UNKNOWN_S)
        self._used: dict[str, int] = {}
        self._look_ups = 0
        self._version: int | None = None  # of the last change that was heeded
        self.is_empty = True  # no key was ever made

    async def get(self, key_id: str) -> Key | None:
        """Raises Unavailable when the store must be asked and does not answer in time."""
        key = self._known.get(key_id)
        if key is None and key_id not in self._unknown:
            key = await self._look_up(key_id)
        return key

    async def _look_up(self, key_id: str) -> Key | None:
        if self._look_ups >= LOOK_UPS:
            raise Unavailable("too many unknown keys at once")
        self._look_ups += 1
        version = self._version
        try:
            async with asyncio.timeout(LOOK_UP_S):
                key = await self._store.read(keys.look_up, key_id)
        except (TimeoutError, *self._store.errors) as error:
            raise Unavailable("the store of keys does not answer") from error
        finally:
            self._look_ups -= 1
        if version == self._version:  # else what was read may be older than the change
            self._remember(key_id, key)
        return key

    def _remember(self, key_id: str, key: Key | None) -> None:
        if key is None:
            self._unknown[key_id] = None
        else:
            self._known[key_id] = key

    def used(self, key_id: str, now: int) -> None:
        self._used[key_id] = now

    async def refresh(self) -> None:
        """Drops what changed since the last time."""
        if self._version is None:
            self._version = await self._store.read(keys.last_version)
        changed = await self._store.read(keys.changed_since, self._version)
        for key_id in changed:
            self._known.pop(key_id, None)
            self._unknown.pop(key_id, None)
        self._version = max(changed.values(), default=self._version)
        self.is_empty = self.is_empty and not await self._store.read(keys.has_any)

    async def flush(self) -> None:
        """Writes down when keys were last used."""
        used, self._used = self._used, {}
        await self._store.write(keys.touch, used)
