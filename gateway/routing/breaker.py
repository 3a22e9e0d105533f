"""A circuit breaker: closed, open, half open. Times are handed in [s, any monotonic clock].

It opens on a high error rate within a sliding window, on many failures in a row, and on silence:
timeouts with no success between.
Open, it waits for a probe to say that the upstream is alive; then one attempt, the trial, decides.
Leaves out the probes themselves: `balance`.
"""

from collections import deque
from typing import Literal

from gateway.config import BreakerPolicy

NUM_BUCKETS = 10


class Breaker:
    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.cooldown = policy.cooldown_s
        self._is_trial_out = False
        self._in_a_row = 0
        self._silences = 0
        self._buckets: deque[list[float]] = deque(maxlen=NUM_BUCKETS)  # [start, good, bad]

    @property
    def admits(self) -> bool:
        return self.state == "closed" or (self.state == "half_open" and not self._is_trial_out)

    def take(self) -> bool:
        """Begin an attempt. Is it the trial?"""
        self._is_trial_out = self.state == "half_open"
        return self._is_trial_out

    def succeeded(self, now: float, is_trial: bool = False) -> None:
        self._in_a_row = self._silences = 0
        if is_trial:
            self._close()
        self._bucket(now)[1] += 1

    def failed(self, now: float, is_trial: bool = False, is_silent: bool = False) -> None:
        """What comes back late, from before the breaker opened, is no news."""
        if self.state != "closed":
            if is_trial and self.state == "half_open":
                self._open(min(2 * self.cooldown, self.policy.cooldown_max_s))
            return
        self._in_a_row += 1
        self._silences += is_silent
        self._bucket(now)[2] += 1
        if self._is_failing(now):
            self._open(self.policy.cooldown_s)

    def abandoned(self, is_trial: bool) -> None:
        """An attempt ended without a verdict, as when its client left."""
        if is_trial:
            self._is_trial_out = False

    def probed(self, is_alive: bool) -> None:
        """The answer to a probe, asked `cooldown` seconds after the breaker opened or the last."""
        if self.state != "open":
            return
        if is_alive:
            self.state, self._is_trial_out = "half_open", False
        else:
            self._open(min(2 * self.cooldown, self.policy.cooldown_max_s))

    def _open(self, cooldown: float) -> None:
        self.state, self.cooldown = "open", cooldown
        self._in_a_row = self._silences = 0
        self._buckets.clear()

    def _close(self) -> None:
        self.state, self.cooldown = "closed", self.policy.cooldown_s
        self._is_trial_out = False

    def _bucket(self, now: float) -> list[float]:
        width = self.policy.window_s / NUM_BUCKETS
        start = now // width * width
        if not self._buckets or self._buckets[-1][0] < start:
            self._buckets.append([start, 0, 0])
        return self._buckets[-1]

    def _is_failing(self, now: float) -> bool:
        policy = self.policy
        if self._silences >= policy.silences or self._in_a_row >= policy.failures_in_a_row:
            return True
        recent = [it for it in self._buckets if it[0] > now - policy.window_s]
        good, bad = sum(it[1] for it in recent), sum(it[2] for it in recent)
        return bad >= policy.min_failures and bad >= policy.error_rate * (good + bad)
