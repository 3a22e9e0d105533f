"""The road of every request for a model: this file holds the order of the stages, and nothing else
does.

Who calls was settled at the door (`app`), before a byte of the body was read. A stage is a function
of the call and of what requests share; it raises GatewayError to end the request.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway import grounding, prompts, releases
from gateway.admit import Admitted
from gateway.call import Call
from gateway.plan import make_plan
from gateway.relay import Relay
from gateway.routing import attempts
from gateway.state import State


async def answer(call: Call, state: State) -> AsyncGenerator[bytes]:
    """What goes to the client, piece by piece; the last piece only when all is settled."""
    setup = state.setup
    relay, citer = Relay(call), grounding.Citer(call)
    await releases.pick(call, setup, state.mirror)
    prompts.pick(call, setup, state.mirror)
    async with Admitted(call, setup, state):
        await grounding.retrieve(call, setup, state)
        await prompts.render(call, setup, state.renderer)
        plan = make_plan(call, setup, state.local)
        async with aclosing(attempts.run(plan, state.pool, call.attempts)) as answers:
            async for frames in answers:
                if piece := relay.take(citer.take(frames)):
                    yield piece
    yield relay.last
