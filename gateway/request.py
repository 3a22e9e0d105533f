"""A client's request as a Call: parsed once, and checked in the fields that the gateway reads.

All other fields are the upstream's to judge and pass untouched.
"""

from typing import Annotated, Any

import msgspec

from gateway.call import Call, Principal, PromptRef, Route
from gateway.errors import BadRequest
from gateway.responses import to_chat
from model.protocol.errors import InvalidRequest
from model.protocol.shapes import (
    MAX_PROMPTS,
    Count,
    Positive,
    Prompt,
    StreamOptions,
    read_object,
    read_shape,
)


class Fields(msgspec.Struct):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Positive | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    user: str | None = None


class ChatFields(Fields, kw_only=True):
    messages: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    prompt: PromptRef | None = None


class CompletionFields(Fields, kw_only=True):
    prompt: Prompt


class EmbeddingFields(msgspec.Struct):
    model: str
    input: Prompt
    user: str | None = None


FIELDS: dict[Route, type[msgspec.Struct]] = {
    "chat": ChatFields,
    "responses": ChatFields,
    "completions": CompletionFields,
    "embeddings": EmbeddingFields,
}


def read_call(
    route: Route, name: str, raw: bytes, headers: dict[str, str], principal: Principal
) -> Call:
    """Raises BadRequest with the offending `param`."""
    try:
        asked = read_object(raw)
        body = to_chat(asked) if route == "responses" else asked
        fields = read_shape(body, FIELDS[route])
    except InvalidRequest as error:
        raise BadRequest(error.message, param=error.param or "body", code=error.code) from error
    call = Call(name, route, body, len(raw), headers, principal=principal, asked=asked)
    if isinstance(fields, Fields):
        call.stream = bool(fields.stream)
        if fields.stream_options is not None:
            call.wants_usage = bool(fields.stream_options.include_usage)
            if not call.stream:
                raise BadRequest("'stream_options' needs 'stream'", param="stream_options")
        call.max_tokens = fields.max_completion_tokens or fields.max_tokens
        call.num_choices = fields.n or 1
    if isinstance(fields, ChatFields):
        call.asked_prompt = fields.prompt
    if isinstance(fields, CompletionFields):
        call.num_choices *= _num_prompts(fields.prompt, "prompt")
    if isinstance(fields, EmbeddingFields):
        _num_prompts(fields.input, "input")
    return call


def _num_prompts(prompt: Prompt, param: str) -> int:
    """One text or one list of token ids is one prompt; else each item is one.

    Raises BadRequest for more than MAX_PROMPTS.
    """
    count = 1 if isinstance(prompt, str) or isinstance(prompt[0], int) else len(prompt)
    if count > MAX_PROMPTS:
        raise BadRequest(f"'{param}' has {count} items, at most {MAX_PROMPTS}", param=param)
    return count
