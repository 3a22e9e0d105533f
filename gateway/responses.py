"""OpenAI's Responses API over the road of chat: its request as a chat body, chat's answer as items.

Stateless: what would have to be kept between requests is refused by name. So it works with every
upstream that speaks chat completions. The way back is `response_items`.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from gateway import chat
from gateway.call import Call
from gateway.errors import BadRequest, GatewayError
from gateway.response_items import Answer
from gateway.state import State
from model.protocol.errors import InvalidRequest
from model.protocol.shapes import Positive, read_shape
from model.protocol.sse import EventReader

Json = dict[str, Any]

# A client that relies on one of these would get wrong answers: each is refused by name.
STATE = ("previous_response_id", "conversation", "background", "store")
ELSEWHERE = ("include", "max_tool_calls", "top_logprobs", "context_management", "n")
SEALED = ["reasoning.encrypted_content"]  # thoughts to bring again; nothing is lost without them
EVENT_BYTES = 64 << 20  # as much as an answer may have


class TextConfig(msgspec.Struct):
    format: Json = {}
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None


class Fields(msgspec.Struct):
    """What means something else in chat; other fields go on as they are."""

    input: str | list[Json] = ""
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    prompt: Json | None = None
    truncation: str | None = None
    stream_options: Json | None = None  # its one field pads events against eavesdroppers


async def answer(call: Call, state: State) -> AsyncGenerator[bytes]:
    """As `chat.answer`, whose pieces it reads and says anew."""
    made = Answer(call.asked)
    reader = EventReader(EVENT_BYTES)
    try:
        async with aclosing(chat.answer(call, state)) as pieces:
            async for piece in pieces:
                if not call.stream:
                    yield made.of_body(msgspec.json.decode(piece))
                    continue
                for event in reader.feed(piece):
                    yield b"".join(made.take(event.data))
    except GatewayError as error:
        if not made.is_begun:
            raise
        yield made.failed(error)


def to_chat(asked: Json) -> Json:
    """The body of a chat request that asks the same. Raises BadRequest with the field's path."""
    given = {name: value for name, value in asked.items() if value is not None}
    if given.get("include") == SEALED:
        del given["include"]
    for name in (*STATE, *ELSEWHERE):
        if given.get(name):
            kept = "keeps no state" if name in STATE else "does not have it"
            raise BadRequest(f"'{name}' is refused: this gateway {kept}", param=name)
    try:
        fields = read_shape(given, Fields)
    except InvalidRequest as error:
        raise BadRequest(error.message, param=error.param, code=error.code) from error
    own = {field.name for field in msgspec.structs.fields(Fields)}
    rest = {name: it for name, it in given.items() if name not in own.union(STATE, ELSEWHERE)}
    text = fields.text or TextConfig()
    if fields.truncation == "auto":
        raise BadRequest("'truncation' is refused: nothing is cut here", param="truncation")
    new = {
        "messages": list(_messages(fields)),
        "max_completion_tokens": fields.max_output_tokens,
        "tools": [_tool(it, f"tools[{i}]") for i, it in enumerate(fields.tools or ())] or None,
        "tool_choice": _choice(fields.tool_choice),
        "response_format": _format(text.format),
        "verbosity": text.verbosity,
        "reasoning_effort": fields.reasoning.effort if fields.reasoning else None,
        "prompt": _prompt(fields.prompt),
        "stream_options": {"include_usage": True} if given.get("stream") else None,
    }
    if fields.input == [] or not {"input", "instructions", "prompt"} & given.keys():
        raise BadRequest("'input' is missing", param="input")
    return rest | {name: value for name, value in new.items() if value is not None}


def _messages(fields: Fields) -> Iterator[Json]:
    """Neighbouring calls of functions, and the text before them, are one turn of the assistant."""
    if fields.instructions:
        yield {"role": "system", "content": fields.instructions}
    if isinstance(fields.input, str):
        if fields.input or not fields.instructions:
            yield {"role": "user", "content": fields.input}
        return
    held: Json | None = None
    for i, item in enumerate(fields.input):
        if item.get("type") == "reasoning":  # of an earlier turn: chat has no place for it
            continue
        message = _message(item, f"input[{i}]")
        if held is not None and message.get("tool_calls"):
            held["tool_calls"] = held.get("tool_calls", []) + message["tool_calls"]
            continue
        if held is not None:
            yield held
        held = message if message["role"] == "assistant" else None
        if held is None:
            yield message
    if held is not None:
        yield held


def _message(item: Json, path: str) -> Json:
    match item:
        case {"type": "function_call", "call_id": name, "name": function, "arguments": arguments}:
            called = {"name": function, "arguments": arguments}
            call = {"id": name, "type": "function", "function": called}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        case {"type": "function_call_output", "call_id": name, "output": output}:
            content = _content(output, f"{path}.output")
            return {"role": "tool", "tool_call_id": name, "content": content}
        case {"role": str(role), "content": content} if item.get("type", "message") == "message":
            return {"role": role, "content": _content(content, f"{path}.content")}
        case {"type": str(kind)}:
            text = f"an item of type {kind!r} is incomplete or not known here"
            raise BadRequest(text, param=path)
    raise BadRequest(f"'{path}' is no input item", param=path)


def _content(content: Any, path: str) -> Any:
    """Chat's content; text alone becomes one string, which every upstream takes."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"'{path}' is neither text nor a list", param=path)
    parts = [_part(part, f"{path}[{i}]") for i, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, path: str) -> Json:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {"type": "image_url", "image_url": {"url": url, **_only(part, "detail")}}
        case {"type": "input_file", "file_data": str()}:
            return {"type": "file", "file": _only(part, "file_data", "filename")}
    raise BadRequest(f"'{path}' is no content that can be passed on", param=path)


def _only(part: Json, *names: str) -> Json:
    return {name: part[name] for name in names if name in part}


def _tool(tool: Json, path: str) -> Json:
    if tool.get("type") != "function":
        text = f"a tool of type {tool.get('type')!r} is refused: only functions of your own"
        raise BadRequest(text, param=f"{path}.type")
    return {
        "type": "function",
        "function": {name: it for name, it in tool.items() if name != "type" and it is not None},
    }


def _choice(choice: str | Json | None) -> str | Json | None:
    if choice is None or isinstance(choice, str):
        return choice
    if choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    raise BadRequest("'tool_choice' names no function", param="tool_choice")


def _format(form: Json) -> Json | None:
    kind = form.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_schema":
        return {"type": kind, kind: {name: it for name, it in form.items() if name != "type"}}
    return form


def _prompt(prompt: Json | None) -> Json | None:
    """Values may be given as input items; only text can be one."""
    if prompt is None or not isinstance(prompt.get("variables"), dict):
        return prompt
    values = {
        name: _content([it], f"prompt.variables.{name}")
        if isinstance(it, dict) and "type" in it
        else it
        for name, it in prompt["variables"].items()
    }
    return {**prompt, "variables": values}
