"""POST /v1/score and /rerank: how well texts go together.

By the embedder: the cosine of the two vectors. By the chat model: the likelihood of the query given
the document, as the geometric mean over the query's tokens (query likelihood ranking, Ponte & Croft
1998).
"""

import math
import time
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from model.engine.sequence import Request, SamplingParams
from model.protocol.shapes import Json
from model.server.embeddings import encode_all
from model.server.errors import BadRequest
from model.server.prompts import fit, off_loop_if_long
from model.server.replies import Answers, json_response
from model.server.served import Call

Texts = Annotated[list[str], Meta(min_length=1, max_length=1024)]
SCORE_ONLY = SamplingParams(max_tokens=0, prompt_logprobs=0, temperature=0.0)


class Document(Struct):
    text: str


class ScoreRequest(Struct, kw_only=True):
    """One text against each of the others, or two lists of equal length pair by pair."""

    model: str
    text_1: str | Texts
    text_2: str | Texts
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None


class RerankRequest(Struct, kw_only=True):
    model: str
    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1, max_length=1024)]
    top_n: Annotated[int, Meta(ge=0)] | None = None
    return_documents: bool | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None


async def score(call: Call) -> Response:
    """A number for each pair of texts; more is better."""
    request = call.read(ScoreRequest)
    left, right = (
        [text] if isinstance(text, str) else text for text in (request.text_1, request.text_2)
    )
    if len(left) == 1:
        left = left * len(right)
    if len(left) != len(right):
        raise BadRequest("'text_1' and 'text_2' have different lengths", "text_2")
    pairs = list(zip(left, right, strict=True))
    scores, num_tokens = await _score(call, request.model, pairs, request.truncate_prompt_tokens)
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
    reply = {"id": f"score-{call.id}", "object": "list", "created": int(time.time())}
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return json_response(reply | {"model": request.model, "data": data, "usage": usage})


async def rerank(call: Call) -> Response:
    """The documents, the best first; all of them, or the `top_n` (0: all)."""
    request = call.read(RerankRequest)
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    pairs = [(request.query, text) for text in texts]
    scores, num_tokens = await _score(call, request.model, pairs, request.truncate_prompt_tokens)
    order = sorted(range(len(texts)), key=lambda i: -scores[i])[: request.top_n or None]
    results: list[Json] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if request.return_documents is not False:
        results = [one | {"document": {"text": texts[one["index"]]}} for one in results]
    reply = {"id": f"rerank-{call.id}", "model": request.model, "results": results}
    return json_response(reply | {"usage": {"total_tokens": num_tokens}})


Scores = tuple[list[float], int]  # one per pair, and the tokens that were read


async def _score(
    call: Call, model: str, pairs: list[tuple[str, str]], truncate: int | None
) -> Scores:
    if model == call.served.embedder_name:
        return await _cosines(call, pairs, truncate)
    return await _likelihoods(call, call.served.adapter_of(model), pairs, truncate)


async def _cosines(call: Call, pairs: list[tuple[str, str]], truncate: int | None) -> Scores:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    ids = await encode_all(call.served, texts, truncate, "texts")
    vectors = dict(zip(texts, await call.served.worker.embed(ids), strict=True))
    return [float(vectors[a] @ vectors[b]) for a, b in pairs], sum(map(len, ids))


async def _likelihoods(
    call: Call, adapter: str | None, pairs: list[tuple[str, str]], truncate: int | None
) -> Scores:
    served, tokenizer = call.served, call.served.tokenizer

    def encode() -> list[tuple[list[int], int]]:
        """(document and query, length of the query) in ids"""
        jobs = []
        for query, document in pairs:
            asked = tokenizer.encode(f"\n{query}")
            read = fit(served, tokenizer.encode(document, True), truncate, "text_2")
            jobs.append((fit(served, read + asked, None, "text_2"), len(asked)))
        return jobs

    jobs = await off_loop_if_long(encode, sum(len(a) + len(b) for a, b in pairs))
    first_id = served.worker.free_id(f"score-{call.id}")
    requests = [
        Request(
            id=f"{first_id}-{i}" if i else first_id,
            prompt_ids=ids,
            params=SCORE_ONLY,
            adapter=adapter,
        )
        for i, (ids, _) in enumerate(jobs)
    ]
    answers = Answers()
    async with served.worker.answers(requests) as outputs:
        await answers.take_all(outputs)
    scores = []
    for request, (_, length) in zip(requests, jobs, strict=True):
        scored = (answers[request.id, 0].prompt_logprobs or [])[-length:]
        mean = sum(one.logprob for one in scored if one is not None) / length
        scores.append(math.exp(mean))
    return scores, sum(len(ids) for ids, _ in jobs)
