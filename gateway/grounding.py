"""What a release's index gives to a request, and what of the answer rests on it.

How passages are found, packed and compared with an answer is `retrieval`'s; here they meet the
call: its question, its budget, its headers, its frames.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from gateway.call import Call
from gateway.config import Index
from gateway.counting import counts
from gateway.errors import BadRequest, NotFound, NothingRelevant, Unavailable
from gateway.plan import targets_of
from gateway.prompts import question_of
from gateway.retrieval import augment
from gateway.retrieval.citations import verify, without_far
from gateway.retrieval.index import How, Searcher, find, scoped
from gateway.retrieval.rerank import UpstreamReranker
from gateway.routing.attempts import Attempt
from gateway.routing.frames import Frame
from gateway.setup import Setup
from gateway.state import State
from model.protocol.sse import encode_event

NOWHERE = "vs_none@0"  # of a store that is not there; and snapshot 0 of any is empty


async def retrieve(call: Call, setup: Setup, state: State) -> None:
    """Write the context for the call's prompt into `call`, if its release has an index.

    Raises NothingRelevant where that is the index's policy, Unavailable when nobody can search.
    """
    release = setup.config.releases[call.release]
    if call.prompt is None or not release.index or "context" not in call.prompt.uses:
        return
    index = setup.config.indexes[release.index]
    tokenizer = targets_of(call, setup)[0].tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        return counts(texts, tokenizer)

    if call.store:  # what the answer cache's key names, whatever was published since
        index = msgspec.structs.replace(index, store=call.store)
    question = question_of(call.body["messages"])
    reranker = _reranker(index, setup, state)
    call.context = await augment.retrieve(
        question, index, release.context_budget, state.searcher, count, reranker
    )
    call.mark("retrieve")
    call.reply_headers.append(("x-glassgate-context", call.context.header))
    if call.context.policy == "refuse":
        raise NothingRelevant("no document has anything relevant to the question")


async def knowledge(call: Call, setup: Setup, state: State) -> str:
    """Which state of which store `retrieve` is to search from now on; "" without an index."""
    release = setup.config.releases[call.release]
    if call.prompt is None or not release.index or "context" not in call.prompt.uses:
        return ""
    index = setup.config.indexes[release.index]
    try:
        kept = await state.store.read(find, index.tenant, index.store)
        scope = scoped(kept, index.store, How(), state.store.engine.dialect.name)
    except NotFound:
        call.store = NOWHERE
        return call.store
    except BadRequest as error:
        raise Unavailable(f"the release's index cannot be searched: {error}") from error
    except state.store.errors as error:
        raise Unavailable("the release's index cannot be searched") from error
    call.store = f"{kept.id}@{scope.snapshot}"
    return f"{call.store}+{kept.epoch}"


def _reranker(index: Index, setup: Setup, state: State) -> UpstreamReranker | None:
    if not index.rerank:
        return None
    release = setup.config.families[index.rerank].labels["production"]
    target = setup.targets[setup.config.releases[release].upstream]
    return UpstreamReranker(target, state.pool)


class Citer:
    """Adds to an answer the citations that hold; other frames pass as they are.

    A plain answer has them in its message, a stream in one chunk before each choice's finish.
    """

    def __init__(self, call: Call, bill: Sequence[Attempt], searcher: Searcher) -> None:
        self._call = call
        self._bill = bill
        self._searcher = searcher
        self._texts: dict[int, list[str]] = {}  # choice → what it said so far

    async def take(self, frames: list[Frame]) -> list[Frame]:
        context = self._call.context
        if context is None or not context.given:
            return frames
        return [out for frame in frames async for out in self._take(frame)]

    async def _take(self, frame: Frame) -> AsyncIterator[Frame]:
        if frame.kind == "body":
            yield await self._in_body(frame)
            return
        for choice in frame.choices:
            texts = self._texts.setdefault(choice.index, [])
            said = (choice.delta or {}).get("content")
            if isinstance(said, str):
                texts.append(said)
            if choice.finish_reason is not None and (found := await self._cite("".join(texts))):
                yield self._chunk(frame, choice.index, found)
        yield frame

    async def _in_body(self, frame: Frame) -> Frame:
        body: dict[str, Any] = msgspec.json.decode(frame.data)
        is_changed = False
        for choice in body["choices"]:
            message = choice["message"]
            if found := await self._cite(message.get("content") or ""):
                message["annotations"] = [*(message.get("annotations") or ()), *found]
                is_changed = True
        raw = msgspec.json.encode(body)
        return msgspec.structs.replace(frame, raw=raw, data=raw) if is_changed else frame

    async def _cite(self, text: str) -> list[dict[str, Any]]:
        if self._call.context is None or not text:
            return []
        verdict = verify(text, self._call.context.given)
        cited = verdict.citations
        cosines = await self._searcher.nearness(
            [it.claim for it in cited], [it.hit.passage for it in cited]
        )
        verdict = without_far(verdict, cosines)
        self._call.verdicts.append(verdict)
        return [it.annotation() for it in verdict.citations]

    def _chunk(self, frame: Frame, index: int, annotations: list[dict[str, Any]]) -> Frame:
        """An event of the same stream as `frame` that says nothing but the citations."""
        event: dict[str, Any] = msgspec.json.decode(frame.data)
        event.pop("usage", None)
        event["model"] = self._bill[-1].target.model
        choice = {"index": index, "delta": {"annotations": annotations}, "finish_reason": None}
        data = msgspec.json.encode({**event, "choices": [choice]})
        return Frame("content", encode_event(data), data)
