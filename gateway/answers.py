"""A call's way through the answer cache: what its release allows, and who may share with whom.

A kept answer costs nothing: its row in the ledger has no target, no tokens and no cost.
"""

from typing import TYPE_CHECKING

from gateway.answer_cache import Embed, Served
from gateway.answer_flight import Produce
from gateway.answer_key import Policy, Scope, ask
from gateway.call import Call
from gateway.grounding import knowledge
from gateway.retrieval.embedder import EmbedderSilent
from gateway.setup import Setup
from gateway.state import State

if TYPE_CHECKING:
    from gateway.answer_vectors import Vector


async def serve(call: Call, setup: Setup, state: State, produce: Produce) -> Served:
    """A kept answer, or what `produce` makes; which one is in the reply's headers."""
    release = setup.config.releases[call.release]
    question = None
    if release.cache.ttl_s > 0:
        prompt = call.prompt
        scope = Scope(
            route=call.route,
            release=setup.fingerprints[call.release],
            tenant=call.principal.tenant,
            prompt=f"{prompt.name}:{prompt.hash}" if prompt else "",
            knowledge=await knowledge(call, setup, state),
        )
        sampling = {**(prompt.front.sampling if prompt else {}), **release.sampling}
        kept = release.cache
        threshold = kept.threshold if kept.semantic else None
        policy = Policy(kept.ttl_s, kept.sampled, threshold)
        header = call.headers.get("cache-control", "")
        question = ask(scope, call.body, sampling, policy, header)
    served = await state.answers.serve(question, produce, call.attempts, _embed(state))
    call.reply_headers += served.headers
    call.cache, call.similarity = served.status, served.similarity
    return served


def _embed(state: State) -> Embed | None:
    embedder = state.searcher.embedder
    if embedder is None:
        return None

    async def embed(text: str) -> "Vector | None":
        try:
            vector: Vector = (await embedder.embed([text], is_question=True))[0]
        except EmbedderSilent:
            return None
        return vector

    return embed
