"""Kept answers that all gateways share, in Redis. A Redis that is silent has none."""

import contextlib

import msgspec

from gateway.answer_forms import Entry
from gateway.redis_link import RedisLink, RedisSilent


class RedisAnswers:
    """Entries leave when their time is over, or by Redis' own policy when its memory is full."""

    def __init__(self, link: RedisLink, prefix: str = "glassgate") -> None:
        self._link = link
        self._prefix = f"{prefix}:answer:"

    async def find(self, key: str) -> Entry | None:
        try:
            blob = await self._link.call("GET", self._prefix + key)
            return msgspec.msgpack.decode(blob, type=Entry) if blob else None
        except (RedisSilent, msgspec.MsgspecError):  # or another version of us wrote it
            return None

    async def keep(self, key: str, entry: Entry, ttl_s: float) -> None:
        with contextlib.suppress(RedisSilent):
            blob = msgspec.msgpack.encode(entry)
            await self._link.call("SET", self._prefix + key, blob, "PX", int(ttl_s * 1000))
