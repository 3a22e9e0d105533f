"""Limits: who may send how much, checked and reserved in one atomic step before anything is spent.

A request asks for its upper bound under every rule that holds for it: its key, team, family and
everybody. All rules have room and it is granted, or one has not and nothing is taken from any.
Afterwards it is settled, once, to what was really used.

Three shapes of rule:

- **Token bucket**: requests and tokens per minute. The bucket holds `capacity` units, starts full
  and refills evenly at `capacity` a minute; the burst is the whole bucket. A reservation takes its
  bound, the settlement gives the rest back (a full bucket does not overflow) or takes more. Used
  above reserved may leave a debt: then nobody passes, not even for nothing, until it is refilled.
- **Slots**: concurrent streams. A slot is held under a lease; settling gives it back, and so does
  the end of a lease that nobody renewed, so a lost machine blocks nobody.
- **Calendar window**: cost per UTC day or month, in nano-dollars, reserved at worst-case cost under
  a lease and settled in the window in which it was reserved. A window that is not known begins
  with what the ledger says was spent. When a lease ends unsettled its reservation is given back;
  a settlement that comes later is still charged.

Where the counts live: `memory` (one process) or `redis` (shared; one Lua script, one round trip).
`rules` has the words they share, `headers` what a client reads, `admission` the queue and the
renewal of leases. Which rules a request has and what its bound is, the gateway's spine knows.
"""

from gateway.limits.admission import Admission, QueuePolicy
from gateway.limits.headers import rate_headers
from gateway.limits.memory import MemoryLimiter
from gateway.limits.rules import (
    NOTHING,
    Amounts,
    Demand,
    Grant,
    Limiter,
    Refusal,
    Rule,
    demands_for,
    rules_of,
)

__all__ = [
    "NOTHING",
    "Admission",
    "Amounts",
    "Demand",
    "Grant",
    "Limiter",
    "MemoryLimiter",
    "QueuePolicy",
    "Refusal",
    "Rule",
    "demands_for",
    "rate_headers",
    "rules_of",
]
