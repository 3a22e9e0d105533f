"""Every route of the model server, in one table, and the OpenAPI document made from it."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from starlette.responses import Response

from model.protocol.errors import ErrorBody
from model.protocol.shapes import ChatRequest, CompletionRequest, EmbeddingRequest
from model.server import adapter_api, info
from model.server.chat import chat_completions
from model.server.completions import completions
from model.server.embeddings import embeddings
from model.server.replies import json_response
from model.server.scoring import RerankRequest, ScoreRequest, rerank, score
from model.server.served import Call

Handler = Callable[[Call], Awaitable[Response]]


class Endpoint(NamedTuple):
    """A method and a path, who answers there, and the shape of the body."""

    method: str
    path: str
    handler: Handler
    shape: type[Struct] | None = None


async def openapi(call: Call) -> Response:
    """This document: the routes of this server and the shapes of their bodies."""
    return json_response(document())


ENDPOINTS = [
    Endpoint("POST", "/v1/chat/completions", chat_completions, ChatRequest),
    Endpoint("POST", "/v1/completions", completions, CompletionRequest),
    Endpoint("POST", "/v1/embeddings", embeddings, EmbeddingRequest),
    Endpoint("POST", "/v1/score", score, ScoreRequest),
    Endpoint("POST", "/v1/rerank", rerank, RerankRequest),
    Endpoint("POST", "/rerank", rerank, RerankRequest),
    Endpoint("GET", "/v1/models", info.list_models),
    Endpoint("GET", "/v1/models/{model:path}", info.show_model),
    Endpoint("POST", "/v1/load_lora_adapter", adapter_api.load_adapter, adapter_api.LoadRequest),
    Endpoint(
        "POST", "/v1/unload_lora_adapter", adapter_api.unload_adapter, adapter_api.UnloadRequest
    ),
    Endpoint("POST", "/tokenize", info.tokenize, info.TokenizeRequest),
    Endpoint("POST", "/detokenize", info.detokenize, info.DetokenizeRequest),
    Endpoint("GET", "/tokenizer_info", info.tokenizer_info),
    Endpoint("POST", "/abort", info.abort, info.AbortRequest),
    Endpoint("GET", "/load", info.load),
    Endpoint("GET", "/health", info.health),
    Endpoint("GET", "/version", info.version),
    Endpoint("GET", "/metrics", info.metrics),
    Endpoint("GET", "/openapi.json", openapi),
]


def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    shapes = [endpoint.shape for endpoint in ENDPOINTS if endpoint.shape is not None]
    (error, *schemas), components = msgspec.json.schema_components(
        [ErrorBody, *shapes], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(shapes, schemas, strict=True))
    refusal = {"description": "a refusal", "content": {"application/json": {"schema": error}}}
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        summary = (endpoint.handler.__doc__ or "").partition("\n")[0]
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {"200": {"description": "the answer"}, "default": refusal},
        }
        if endpoint.shape is not None:
            content = {"application/json": {"schema": schema_of[endpoint.shape]}}
            operation["requestBody"] = {"required": True, "content": content}
        path = endpoint.path.replace(":path", "")
        if "{" in path:
            where = {"name": "model", "in": "path", "required": True}
            operation["parameters"] = [where | {"schema": {"type": "string"}}]
        paths.setdefault(path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Glassgate model server", "version": info.release()},
        "paths": paths,
        "components": {"schemas": components},
    }
