"""From a question to the context of a prompt: passages packed into the release's budget.

Nothing is cut in silence: what was left out, and why, is in the Context, for the trace and the
response header. A passage is data: what it says can neither end its own block nor look like a
token of a chat template.
"""

import re
from collections.abc import Callable, Sequence

from gateway.config import Index
from gateway.errors import BadRequest, NotFound, Unavailable
from gateway.retrieval.found import Context, Dropped, Hit
from gateway.retrieval.index import How, Reranker, Searcher

Count = Callable[[Sequence[str]], list[int]]  # tokens of each text, as the release's model counts
NOTHING_FOUND = "(No passage in the documents is relevant to the question.)"
_TAG = re.compile(r"<(?=\s*/?\s*passage)|<(?=\s*\|)", re.IGNORECASE)


async def retrieve(
    question: str,
    index: Index,
    budget: int,
    searcher: Searcher,
    count: Count,
    reranker: Reranker | None = None,
) -> Context:
    """What the release's index says to the question, within `budget` tokens.

    A store that is not there (yet) is as one that says nothing. Raises Unavailable when it cannot
    be searched: the database is silent, or the embedder is not the one that filled it.
    """
    how = How(top_k=index.top_k, fusion=index.fusion)
    try:
        found = await searcher.search(index.tenant, index.store, question, how, reranker)
    except NotFound:
        return Context(
            text=_say(index), given=[], dropped=[], tokens=0, mode="missing",
            policy=index.on_nothing,
        )  # fmt: skip
    except BadRequest as error:
        raise Unavailable(f"the release's index cannot be searched: {error}") from error
    except searcher.store.errors as error:  # the words of a database are not the client's
        raise Unavailable("the release's index cannot be searched") from error
    given, dropped, tokens = pack(found.hits, index, budget, count)
    return Context(
        text=render(given) if given else _say(index),
        given=given,
        dropped=dropped,
        tokens=tokens,
        mode=found.mode,
        store=found.store,
        snapshot=found.snapshot,
        epoch=found.epoch,
        num_repeats=found.num_repeats,
        policy="" if given else index.on_nothing,
    )


def pack(
    hits: Sequence[Hit], index: Index, budget: int, count: Count
) -> tuple[list[Hit], list[Dropped], int]:
    """Whole passages, the best first, as many as fit; then in the index's order.

    Where no cosine is known (the embedder was silent) the threshold tells nothing and is not used.
    """
    given: list[Hit] = []
    dropped: list[Dropped] = []
    left = budget
    sizes = count([block(len(hits), it) for it in hits])
    for hit, size in zip(hits, sizes, strict=True):
        if index.threshold and hit.relevance is not None and hit.relevance < index.threshold:
            dropped.append(Dropped(hit, "threshold"))
        elif size > left:
            dropped.append(Dropped(hit, "budget"))
        else:
            given.append(hit)
            left -= size
    if index.order == "best_last":
        given.reverse()
    return given, dropped, budget - left


def render(given: Sequence[Hit]) -> str:
    return "".join(block(number, hit) for number, hit in enumerate(given, 1))


def block(number: int, hit: Hit) -> str:
    """A passage as it stands in a prompt; its text cannot end it."""
    return f"<passage {number}>\n{as_data(hit.indexed)}\n</passage {number}>\n"


def as_data(text: str) -> str:
    """Without what a block or a chat template might take for its own."""
    return _TAG.sub("‹", text)


def _say(index: Index) -> str:
    return NOTHING_FOUND if index.on_nothing == "say" else ""
