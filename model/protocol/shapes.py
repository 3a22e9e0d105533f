"""Request bodies of OpenAI's chat completions, completions and embeddings, with vLLM's additions.

The shapes name what a server of ours may honour; bounds are those that hold for any model.
What a value must be beyond its type and range is for the server that serves it.
`read_object` and `read_shape` turn what is wrong into `InvalidRequest` with OpenAI's `param`.
"""

import json
import math
import re
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from model.protocol.errors import InvalidRequest

T = TypeVar("T", bound=Struct)
Json = dict[str, Any]

Count = Annotated[int, Meta(ge=0, le=1 << 24)]
Positive = Annotated[int, Meta(ge=1, le=1 << 24)]
TokenId = Annotated[int, Meta(ge=0, le=1 << 31)]
TokenIds = Annotated[list[TokenId], Meta(max_length=1 << 20)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
TopCount = Annotated[int, Meta(ge=0, le=20)]
Prompt = str | Annotated[list[str | int | TokenIds], Meta(min_length=1, max_length=1 << 20)]
MAX_PROMPTS = 2048  # in one request; a prompt itself may have as many token ids as it likes


class StreamOptions(Struct, kw_only=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class JsonSchema(Struct, kw_only=True):
    name: str = "response"
    schema: Json | bool
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Struct, kw_only=True):
    """Exactly one of these constrains the answer."""

    json: Json | bool | str | None = None
    regex: str | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=1024)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Sampled(Struct, kw_only=True):
    """What chat and text completions share."""

    model: str
    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 24)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: (
        Annotated[dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
        | None
    ) = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    bad_words: Annotated[list[str], Meta(max_length=256)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: TopCount | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    cache_salt: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=1 << 24)] | None = None
    return_token_ids: bool | None = None
    add_special_tokens: bool | None = None
    skip_special_tokens: bool | None = None


class CompletionRequest(Sampled, kw_only=True):
    prompt: Prompt
    echo: bool | None = None
    logprobs: TopCount | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None


class ContentPart(Struct, kw_only=True):
    """A piece of a message; a server that knows only text refuses the other types."""

    type: str
    text: str | None = None


class FunctionCall(Struct, kw_only=True):
    name: str
    arguments: str


class ToolCall(Struct, kw_only=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Message(Struct, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    tool_call_id: str | None = None


class Function(Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Struct, kw_only=True):
    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Struct, kw_only=True):
    name: str


class NamedTool(Struct, kw_only=True):
    function: NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(Sampled, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Json | None = None


class EmbeddingRequest(Struct, kw_only=True):
    model: str
    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=1 << 24)] | None = None


_AT = re.compile(r" - at `(?:key` in `)?\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


def read_object(body: bytes) -> Json:
    """A request body, which must be one JSON object. Raises `InvalidRequest`."""
    try:
        return msgspec.json.decode(body, type=Json)
    except msgspec.ValidationError as error:
        if param := _infinite_number(body):
            raise InvalidRequest(f"'{param}' is not a finite number", param) from None
        raise InvalidRequest(f"the body is not a JSON object: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"the body is not valid JSON: {error}", _infinite_number(body), "invalid_json"
        ) from None
    except RecursionError:
        raise InvalidRequest("the body nests too deeply", code="invalid_json") from None


def read_shape(body: Json, shape: type[T]) -> T:
    """`body` as a `shape`; fields that it does not know are left out. Raises `InvalidRequest`."""
    try:
        return msgspec.convert(body, shape, str_keys=True)
    except msgspec.ValidationError as error:
        message, param = explain(error)
        raise InvalidRequest(message, param) from None


@cache
def fields_of(shape: type[Struct]) -> frozenset[str]:
    """The names of the fields that `shape` knows."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(shape))


def explain(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """(message, param) in OpenAI's words: ("'messages[0].role' is missing", "messages[0].role")."""
    text = str(error)
    at = _AT.search(text)
    path, what = (at["path"], text[: at.start()]) if at else ("", text)
    if missing := _MISSING.search(what):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return f"'{path}' is missing", path
    if unknown := _UNKNOWN.search(what):
        path = f"{path}.{unknown[1]}" if path else unknown[1]
        return f"'{path}' is not known here", path
    if not path:
        return what, None
    return f"Invalid '{path}': {what[:1].lower()}{what[1:]}", path


def _infinite_number(body: bytes) -> str | None:
    """The path of a NaN or infinity, which only the standard library's lenient reader takes."""

    def first(value: object, path: str) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return path
        items: Any = ()
        if isinstance(value, dict):
            items = ((f"{path}.{key}" if path else key, item) for key, item in value.items())
        elif isinstance(value, list):
            items = ((f"{path}[{i}]", item) for i, item in enumerate(value))
        return next((found for name, item in items if (found := first(item, name))), None)

    try:
        return first(json.loads(body), "")
    except (ValueError, RecursionError):
        return None
