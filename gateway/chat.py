"""The road of every request for a model: this file holds the order of the stages, and nothing else
does.

Who calls was settled at the door (`app`), before a byte of the body was read. A stage is a function
of the call and of what requests share; it raises GatewayError to end the request.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from gateway import answers, grounding, prompts, releases
from gateway.admit import Admitted
from gateway.call import Call
from gateway.plan import make_plan
from gateway.relay import Relay
from gateway.routing import attempts
from gateway.routing.frames import Frame
from gateway.setup import Setup
from gateway.state import State


async def answer(call: Call, state: State) -> AsyncGenerator[bytes]:
    """What goes to the client, piece by piece; the last piece only when all is settled."""
    setup = state.setup
    await releases.pick(call, setup, state.mirror)
    prompts.pick(call, setup, state.mirror)
    call.mark("release")
    async with Admitted(call, setup, state):
        call.mark("admit")
        served = await answers.serve(call, setup, state, partial(produce, call, setup, state))
        call.mark("cache")
        relay = Relay(call, served)
        async with aclosing(served.frames) as pieces:
            async for frames in pieces:
                if piece := relay.take(frames):
                    yield piece
    yield relay.last()


async def produce(
    call: Call, setup: Setup, state: State, bill: list[attempts.Attempt]
) -> AsyncGenerator[list[Frame]]:
    """The part of the road that a kept answer spares. What it costs goes into `bill`."""
    await grounding.retrieve(call, setup, state)
    await prompts.render(call, setup, state.renderer)
    plan = make_plan(call, setup, state.local)
    citer = grounding.Citer(call, bill, state.searcher)
    async with aclosing(attempts.run(plan, state.pool, bill)) as pieces:
        async for frames in pieces:
            yield await citer.take(frames)
