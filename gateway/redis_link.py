"""One Redis, asked within a deadline or not at all. What is kept there, its users know.

A call that is late, refused or cut raises `RedisSilent`; after `FAILURES` in a row nobody asks for
`COOLDOWN_S`, then one call probes. So a frozen Redis costs a request the deadline a few times, and
then nothing.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

FAILURES = 3
COOLDOWN_S = 1.0
CONNECTIONS = 64

log = logging.getLogger(__name__)


class RedisSilent(Exception):
    """No answer in time. `retry_after_s` [s]: when asking makes sense again. `was_asked`: Redis may
    have done it all the same."""

    def __init__(self, retry_after_s: float, was_asked: bool) -> None:
        super().__init__("redis does not answer")
        self.retry_after_s = retry_after_s
        self.was_asked = was_asked


class Script:
    """Lua to run with `RedisLink.run`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """`timeout_s` [s] bounds every call, with its connect and its wait for a connection.

    A call that is late, or whose caller has left, ends by itself: redis-py loses connections that
    are cancelled in the wrong moment.
    """

    def __init__(
        self,
        client: "Redis",
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._calls: set[asyncio.Task[Any]] = set()
        self.num_silent = 0  # calls without an answer, for the metrics

    @classmethod
    def open(cls, url: str, timeout_s: float) -> Self:
        """Connects when first asked."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(Redis.from_pool(pool), timeout_s)

    async def aclose(self) -> None:
        while self._calls:
            await asyncio.wait(self._calls)
        await self._client.aclose()

    @property
    def is_silent(self) -> bool:
        return self._clock() < self._closed_until

    async def call(self, *command: Any) -> Any:
        """Raises RedisSilent, and NoScriptError for a script that Redis does not have."""
        now = self._clock()
        if now < self._closed_until:
            raise RedisSilent(self._closed_until - now, was_asked=False)
        if self._failures >= FAILURES:
            self._closed_until = now + COOLDOWN_S  # for the others, while this one probes
        call = asyncio.ensure_future(self._client.execute_command(*command))  # type: ignore[no-untyped-call]
        self._calls.add(call)
        call.add_done_callback(self._ended)
        await asyncio.wait((call,), timeout=self._timeout_s)
        if not call.done():
            raise self._failed(TimeoutError())
        try:
            answer = call.result()
        except NoScriptError:
            self._answered()
            raise
        except (RedisError, OSError) as error:
            raise self._failed(error) from error
        self._answered()
        return answer

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """One round trip; two when Redis does not have the script yet."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self.call("EVAL", script.source, len(keys), *keys, *args)

    def _ended(self, call: "asyncio.Task[Any]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen, also when nobody waits any more

    def _answered(self) -> None:
        self._failures = 0
        self._closed_until = 0.0

    def _failed(self, error: Exception) -> RedisSilent:
        self._failures += 1
        self.num_silent += 1
        if self._failures < FAILURES:
            return RedisSilent(self._timeout_s, was_asked=True)
        if self._failures == FAILURES:
            log.warning("redis does not answer: %s", type(error).__name__)
        self._closed_until = self._clock() + COOLDOWN_S
        return RedisSilent(COOLDOWN_S, was_asked=True)
