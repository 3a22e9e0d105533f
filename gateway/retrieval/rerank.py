"""Query likelihood (Ponte & Croft 1998): how likely a model finds the question after the passage.

Asked of any upstream that serves /v1/score with a text model, as vLLM and our model server do.
"""

from collections.abc import Sequence

import msgspec

from gateway.config import Deadlines
from gateway.retrieval.embedder import ONCE, ask
from gateway.routing.balance import Pool
from gateway.upstream import Target, UpstreamError

RERANK_S = 10.0


class Score(msgspec.Struct):
    index: int
    score: float


class Reply(msgspec.Struct):
    data: list[Score]


class UpstreamReranker:
    def __init__(self, target: Target, pool: Pool) -> None:
        limits = Deadlines(total=RERANK_S)
        self._target = msgspec.structs.replace(target, deadlines=limits)
        self._pool = pool

    async def scores(self, question: str, texts: Sequence[str]) -> list[float] | None:
        """None when the upstream does not answer: the order stays as it was."""
        body = {"text_1": question, "text_2": list(texts)}
        try:
            raw = await ask(self._target, "/score", body, self._pool, ONCE)
            found = {it.index: it.score for it in msgspec.json.decode(raw, type=Reply).data}
            return [found[index] for index in range(len(texts))]
        except (UpstreamError, msgspec.MsgspecError, KeyError):
            return None
