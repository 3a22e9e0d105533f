"""POST /v1/embeddings."""

import base64
from collections.abc import Sequence

import numpy as np
from starlette.responses import Response

from model.protocol.answers import Embedding, EmbeddingList, Usage
from model.protocol.shapes import EmbeddingRequest
from model.server.errors import BadRequest, ContextTooLong
from model.server.prompts import listed, off_loop_if_long
from model.server.replies import json_response
from model.server.served import Call, Served, no_such_model


async def embeddings(call: Call) -> Response:
    """A unit vector for each text, as floats or as base64 of little-endian float32."""
    request, served = call.read(EmbeddingRequest), call.served
    if served.embedder is None or request.model != served.embedder_name:
        if request.model in served.names:
            raise BadRequest(f"'{request.model}' makes no embeddings", "model", "wrong_model")
        raise no_such_model(request.model)
    width = served.embedder.config.hidden_size
    if request.dimensions not in (None, width):
        message = f"'{request.model}' has {width} dimensions, no other number of them"
        raise BadRequest(message, "dimensions", "unsupported")
    texts = listed(request.input, "input")
    sequences = await encode_all(served, texts, request.truncate_prompt_tokens, "input")
    vectors = await served.worker.embed(sequences)
    in_base64 = request.encoding_format == "base64"
    data = [
        Embedding(index=i, embedding=_base64(vector) if in_base64 else vector.tolist())
        for i, vector in enumerate(vectors.astype("<f4", copy=False))
    ]
    num_tokens = sum(map(len, sequences))
    usage = Usage(num_tokens, 0, num_tokens)
    return json_response(EmbeddingList(data=data, model=request.model, usage=usage))


async def encode_all(
    served: Served, texts: Sequence[str | list[int]], truncate: int | None, param: str
) -> list[list[int]]:
    """The ids of each text for the embedder. Raises ContextTooLong, unless told to truncate."""

    def encode() -> list[list[int]]:
        return [_encode(served, text, truncate, f"{param}[{i}]") for i, text in enumerate(texts)]

    return await off_loop_if_long(encode, sum(map(len, texts)))


def _encode(served: Served, text: str | list[int], truncate: int | None, param: str) -> list[int]:
    assert served.embedder is not None  # noqa: S101
    config, ids = served.embedder.config, text
    if isinstance(ids, str):
        ids = served.embedder_tokenizer.encode(ids, add_special_tokens=True)
    if not ids or max(ids) >= config.vocab_size:
        message = f"the token ids are none, or beyond the vocabulary of {config.vocab_size}"
        raise BadRequest(message, param)
    most = config.max_tokens
    if truncate is not None:
        most = most if truncate < 0 else min(most, max(truncate, 1))
        return ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]  # the last one ends a text
    if len(ids) > most:
        message = f"the text has {len(ids)} tokens, '{served.embedder_name}' reads {most}"
        raise ContextTooLong(message, param)
    return ids


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.tobytes()).decode()
