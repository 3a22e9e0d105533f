"""What a request's fields mean to the engine, and which of them this server refuses or ignores.

A known field is honoured, refused with 400, or asks nothing of us; a field that nobody knows is
named in the response header `x-ignored-params`, or refused by a strict server.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from model.engine.sequence import SamplingParams
from model.protocol.shapes import Json, Sampled, fields_of
from model.server.errors import BadRequest

# OpenAI's and vLLM's fields that ask nothing of a server that keeps nothing and bills nobody
HARMLESS = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
     "prediction", "request_id", "include_reasoning"}
)  # fmt: skip
# OpenAI's and vLLM's fields that are not implemented → the values that ask for nothing
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "reasoning_effort": ("none",),
    "functions": ([],),
    "function_call": ("none",),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "spaces_between_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "echo": (False,),
    "priority": (0,),
    "detokenize": (True,),
    "normalize": (True,),
    "chat_template": (),
    "documents": ([],),
    "mm_processor_kwargs": (),
    "logits_processors": (),
    "kv_transfer_params": (),
    "vllm_xargs": (),
    "prompt_embeds": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
}
MAX_NAMED = 32  # ignored fields that the header names
SAME_NAME = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "logit_bias", "seed", "min_tokens", "ignore_eos", "skip_special_tokens",
    "n", "prompt_logprobs", "max_tokens",
)  # fmt: skip


def ignored_fields(body: Json, shape: type[Struct], strict: bool) -> list[str]:
    """Names in `body` that nobody knows. Raises `BadRequest` for what is known and unsupported."""
    ignored = []
    for name in body.keys() - fields_of(shape) - HARMLESS:
        value = body[name]
        if name not in UNSUPPORTED:
            ignored.append(name)
        elif value is not None and value not in UNSUPPORTED[name]:
            raise BadRequest(f"'{name}' is not supported with this value", name, "unsupported")
    if ignored and strict:
        raise BadRequest(f"nobody knows '{ignored[0]}'", ignored[0], "unknown_parameter")
    return sorted(ignored)


def ignored_header(names: list[str]) -> dict[str, str]:
    """The response header that names them; a name may be any text, a header may not."""
    if not names:
        return {}
    return {"x-ignored-params": ",".join(quote(name[:64], safe=" ") for name in names[:MAX_NAMED])}


def sampling_params(
    request: Sampled, defaults: Mapping[str, Any], logprobs: int | None
) -> SamplingParams:
    """The engine's parameters; `defaults` are what the checkpoint's authors recommend."""
    given = {name: getattr(request, name) for name in SAME_NAME}
    values = dict(defaults) | {name: value for name, value in given.items() if value is not None}
    if request.allowed_token_ids is not None:
        values["allowed_token_ids"] = tuple(request.allowed_token_ids)
    return SamplingParams(
        **values,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        include_stop=bool(request.include_stop_str_in_output),
        bad_words=tuple(request.bad_words or ()),
        logprobs=logprobs,
    )


def check_stream(request: Sampled) -> None:
    """Fields that streaming needs or excludes."""
    if request.stream_options is not None and not request.stream:
        raise BadRequest("'stream_options' needs 'stream': true", "stream_options")
    if request.stream and request.prompt_logprobs is not None:
        raise BadRequest("'prompt_logprobs' cannot be streamed", "prompt_logprobs")
