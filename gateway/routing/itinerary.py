"""Whom one request asks next, and when: the retry budget, back-off and held targets.

A target that fails is asked again after a full-jitter back-off, up to `retries.per_target` times,
and after a silence only at another replica. One that wants to be left alone (429, Retry-After) is
passed over while another may be asked, and waited for where there is none and the wait is short.
"""

import asyncio
import math
from collections.abc import Sequence

from gateway.config import Retries
from gateway.routing.balance import Lease, Pool
from gateway.routing.failures import is_refusal, is_too_long, judge
from gateway.upstream import Target, UpstreamError


class Itinerary:
    def __init__(
        self, targets: Sequence[Target], larger: Target | None, retries: Retries, pool: Pool
    ) -> None:
        self._left = list(targets)
        self._larger = larger
        self._retries = retries
        self._pool = pool
        self._failures: list[tuple[Target, UpstreamError]] = []
        self._failed_urls: set[str] = set()
        self._cut: UpstreamError | None = None
        self._backoff = 0.0

    async def next(self) -> Lease:
        """Wait until somebody may be asked. Raises the UpstreamError that tells most if nobody."""
        if self._backoff:
            await asyncio.sleep(self._backoff)
            self._backoff = 0.0
        for _ in range(self._retries.attempts - len(self._failures)):
            for target in self._left:
                if lease := self._pool.pick(target, self._failed_urls):
                    return lease
            wait = min(map(self._pool.held_for, self._left), default=math.inf)
            if wait > self._retries.max_wait_s:
                break
            await asyncio.sleep(wait + self._pool.rng.uniform(0, self._retries.backoff_s))
        raise self._last()

    def failed(self, lease: Lease, error: UpstreamError) -> None:
        """Take note of a failed attempt. Raises what ends the request."""
        target = lease.target
        # Their frames hold the bytes of the answer, and a cycle would hold them till a collection.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        self._failures.append((target, error))
        self._failed_urls.add(lease.base_url)
        verdict = judge(error)
        num_tries = sum(it is target for it, _ in self._failures)
        if verdict == "client":
            self._refused(target, error)
        elif num_tries > self._retries.per_target:
            self._left.remove(target)
        elif verdict == "elsewhere":
            if not (error.is_timeout and self._has_another(target)):
                self._left.remove(target)
        elif error.retry_after is None:
            most = min(self._retries.backoff_s * 2 ** (num_tries - 1), self._retries.backoff_max_s)
            self._backoff = self._pool.rng.uniform(0, most)

    def _has_another(self, target: Target) -> bool:
        """A replica that may be asked now and has not failed this request: not all are silent."""
        lease = self._pool.pick(target, self._failed_urls)
        return lease is not None and lease.base_url not in self._failed_urls

    def recover(self, error: UpstreamError) -> None:
        """From now on only who can continue a message is asked, and `error` is why."""
        self._cut = self._cut or error
        self._left = [target for target in self._left if target.can_continue]

    def _refused(self, target: Target, error: UpstreamError) -> None:
        """A refused prefill is not the client's fault, nor is what only the fallback refuses."""
        if self._cut is not None:
            self._left.remove(target)
            return
        if self._larger is not None and is_too_long(error):
            self._left, self._larger = [self._larger], None
            return
        earlier = [it for other, it in self._failures if other is not target]
        raise earlier[-1] if earlier and not is_refusal(error) else error

    def _last(self) -> UpstreamError:
        if self._cut is not None:
            return self._cut
        if self._failures:
            return self._failures[-1][1]
        seconds = min(map(self._pool.opens_in, self._left), default=math.inf)
        is_limited = all(map(self._pool.is_limited, self._left))
        return UpstreamError(
            "open", "no upstream is open", status=429 if is_limited else None, retry_after=seconds
        )
