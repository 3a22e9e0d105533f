"""Admission and settlement: what is reserved before a request costs anything is settled after it,
exactly once, however the request ends.
"""

import contextlib
import time
from collections.abc import AsyncIterator

from gateway.call import Call
from gateway.errors import GatewayError
from gateway.plan import as_answer
from gateway.setup import Setup
from gateway.state import State
from gateway.upstream import UpstreamError


@contextlib.asynccontextmanager
async def admit(call: Call, setup: Setup, state: State) -> AsyncIterator[None]:
    """Raises RateLimited before anything is spent; an upstream's failure leaves it as an answer."""
    try:
        yield
        call.outcome = "ok"
    except UpstreamError as error:
        answer = as_answer(error)
        call.outcome = answer.code or answer.type
        raise answer from error
    except GatewayError as error:
        call.outcome = error.code or error.type
        raise
    finally:
        state.metrics.observe(call, time.monotonic() - call.started)
