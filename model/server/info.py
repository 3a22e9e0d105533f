"""The routes that say what is served and how it goes, and those around the tokenizer."""

from importlib import metadata
from typing import Any, TypeVar

from msgspec import Struct
from starlette.responses import Response

from model.protocol.answers import ModelCard, ModelList
from model.protocol.shapes import ChatRequest, TokenIds
from model.server.errors import BadRequest
from model.server.prompts import chat_prompt, off_loop_if_long
from model.server.replies import json_response
from model.server.served import Call, Served, no_such_model
from model.server.worker import failure

T = TypeVar("T", bound=Struct)


class TokenizeRequest(Struct, kw_only=True):
    """A text. With `messages` instead, the body is that of a chat completion."""

    prompt: str
    model: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChat(ChatRequest, kw_only=True):
    return_token_strs: bool | None = None


class DetokenizeRequest(Struct, kw_only=True):
    tokens: TokenIds
    model: str


class AbortRequest(Struct, kw_only=True):
    id: str


def cards(served: Served) -> list[ModelCard]:
    """Of the chat model, its adapters and the embedder."""
    longest = served.config.max_model_len
    listed = [ModelCard(id=served.name, created=served.created, max_model_len=longest)]
    for name, path in served.adapters.paths.items():
        card = ModelCard(id=name, created=served.created, max_model_len=longest)
        card.root, card.parent = str(path), served.name
        listed.append(card)
    if served.embedder is not None:
        longest = served.embedder.config.max_tokens
        name = served.embedder_name or ""
        listed.append(ModelCard(id=name, created=served.created, max_model_len=longest))
    for card in listed:
        card.root = card.root or card.id
    return listed


async def list_models(call: Call) -> Response:
    """The models that are served."""
    return json_response(ModelList(data=cards(call.served)))


async def show_model(call: Call) -> Response:
    """One of them."""
    name = call.path["model"]
    for card in cards(call.served):
        if card.id == name:
            return json_response(card)
    raise no_such_model(name)


async def tokenize(call: Call) -> Response:
    """The ids of a text, or of a rendered conversation."""
    served = call.served
    request: TokenizeChat | TokenizeRequest
    if "messages" in call.body:
        request = _read(call, TokenizeChat)
        ids = await chat_prompt(served, request, call.body)
    else:
        request = _read(call, TokenizeRequest)
        text, adds = request.prompt, request.add_special_tokens is not False
        ids = await off_loop_if_long(lambda: served.tokenizer.encode(text, adds), len(text))
    reply: dict[str, Any] = {"count": len(ids), "max_model_len": served.config.max_model_len}
    reply["tokens"] = ids
    if request.return_token_strs:
        reply["token_strs"] = [served.tokenizer.token_text(token_id) for token_id in ids]
    return json_response(reply)


async def detokenize(call: Call) -> Response:
    """The text of ids."""
    tokens, tokenizer = _read(call, DetokenizeRequest).tokens, call.served.tokenizer
    if tokens and max(tokens) >= tokenizer.vocab_size:
        raise BadRequest(f"the vocabulary has {tokenizer.vocab_size} tokens", "tokens")
    return json_response({"prompt": tokenizer.decode(tokens, skip_special_tokens=False)})


async def tokenizer_info(call: Call) -> Response:
    """What the chat model's tokenizer is."""
    served = call.served
    return json_response(
        {
            "tokenizer_class": type(served.tokenizer).__name__,
            "vocab_size": served.tokenizer.vocab_size,
            "bos_id": served.tokenizer.bos_id,
            "eos_id": served.tokenizer.eos_id,
            "chat_template": served.chat_template,
            "model_max_length": served.config.max_model_len,
        }
    )


async def version(call: Call) -> Response:
    """Of this package."""
    return json_response({"version": release()})


def release() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("glassgate")
    except metadata.PackageNotFoundError:
        return "not installed"


async def load(call: Call) -> Response:
    """Requests whose answers are being generated or wait for their turn."""
    return json_response({"server_load": call.served.worker.num_open})


async def abort(call: Call) -> Response:
    """End a running request by the id of its answer; its own client gets finish_reason abort."""
    return json_response({"aborted": await call.served.worker.abort(call.read(AbortRequest).id)})


async def health(call: Call) -> Response:
    """200 once everything is loaded, 500 after the engine has broken."""
    if call.served.worker.broken.is_set():
        raise failure()
    return json_response({"status": "ok"})


async def metrics(call: Call) -> Response:
    """For Prometheus."""
    text = call.served.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _read(call: Call, shape: type[T]) -> T:
    """The body, in which `model` may be left out here."""
    call.body = {"model": call.served.name, **call.body}
    request = call.read(shape)
    call.served.adapter_of(call.body["model"])
    return request
