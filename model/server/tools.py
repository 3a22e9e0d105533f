"""Tool calls: told to the model, forced by a grammar where the client insists, read from its text.

The text of a call is `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as in the Hermes
models and their many successors. A chat template that knows nothing of tools is given the same
words in a system message. What looks like a call to no known function stays text.
"""

import contextlib
import json
import re
import uuid

from model.protocol.answers import AnswerMessage, Delta, FunctionDelta, ToolCallDelta
from model.protocol.shapes import ChatRequest, FunctionCall, Json, NamedTool, Tool, ToolCall
from model.server.errors import BadRequest

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = r'\{\s*"name"\s*:\s*"([\w.-]+)"\s*,\s*"arguments"\s*:\s*(?=\{)'
HEAD = re.compile(r"\s*\[?\s*" + CALL)
NEXT = re.compile(r"\s*\}\s*,\s*" + CALL)  # some models write one list of calls
PARTS = re.compile(rf'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{{}}]|{CLOSE}', re.DOTALL)  # strings, braces
MAX_HEAD = 200  # characters before a call's arguments
MAX_CALLS = 8  # of one answer, where calls are forced
ANNOUNCEMENT = """You can call these functions:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments:
<tool_call>{{"name": "…", "arguments": {{…}}}}</tool_call>"""


def offered_tools(request: ChatRequest) -> list[Tool]:
    """The tools that the model hears of. Raises BadRequest if the choice does not fit them."""
    tools, choice = request.tools or [], request.tool_choice
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise BadRequest("two tools have the same name", "tools")
    if choice == "none":
        return []
    if not tools and choice not in (None, "auto"):
        raise BadRequest("'tool_choice' needs 'tools'", "tool_choice")
    if not isinstance(choice, NamedTool):
        return tools
    chosen = [tool for tool in tools if tool.function.name == choice.function.name]
    if not chosen:
        message = f"'tool_choice' names no tool: '{choice.function.name[:64]}'"
        raise BadRequest(message, "tool_choice.function.name")
    return chosen


def must_call(request: ChatRequest) -> bool:
    return request.tool_choice not in (None, "none", "auto")


def forced_calls(request: ChatRequest) -> str | None:
    """The Lark grammar of an answer that must consist of calls; None if it may be free text."""
    if not must_call(request):
        return None
    tools = offered_tools(request)
    is_named = request.tool_choice != "required"
    most = 1 if is_named or request.parallel_tool_calls is False else MAX_CALLS
    rules = [f"start: call{{1,{most}}}", f'call: "{OPEN}" ({_names(len(tools))}) "{CLOSE}"']
    rules += [f"call_{i}: %json {json.dumps(_schema(tool))}" for i, tool in enumerate(tools)]
    return "\n".join(rules)


def _names(count: int) -> str:
    return " | ".join(f"call_{i}" for i in range(count))


def _schema(tool: Tool) -> Json:
    properties: Json = {
        "name": {"const": tool.function.name},
        "arguments": {"type": "object", **(tool.function.parameters or {})},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "x-guidance": {"whitespace_pattern": " ?"},
    }


def announce(messages: list[Json], tools: list[Json]) -> list[Json]:
    """The conversation for a template without tools: they, and earlier calls, become text."""
    text = ANNOUNCEMENT.format(tools="\n".join(map(json.dumps, tools)))
    shown = [{**message, "content": _with_calls(message)} for message in messages]
    if shown and shown[0]["role"] == "system":
        shown[0]["content"] = f"{shown[0]['content']}\n\n{text}"
        return shown
    return [{"role": "system", "content": text}, *shown]


def with_objects(message: Json) -> Json:
    """The message with the arguments of its calls as objects, as templates of tools want them."""
    if not message.get("tool_calls"):
        return message
    calls = [{**call, "function": _call(call)} for call in message["tool_calls"]]
    return {**message, "tool_calls": calls}


def _with_calls(message: Json) -> str:
    calls = [OPEN + json.dumps(_call(call)) + CLOSE for call in message.get("tool_calls") or ()]
    return "\n".join([*filter(None, [message["content"]]), *calls])


def _call(call: Json) -> Json:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    with contextlib.suppress(ValueError, RecursionError):  # a model's arguments need not be JSON
        arguments = json.loads(arguments)
    return {"name": name, "arguments": arguments}


class CallReader:
    """One answer's text in, deltas out: content, and calls whose arguments flow as they come.

    Where calls are forced there is no content, though one may be cut before its name is known.
    """

    def __init__(self, names: set[str], is_forced: bool = False) -> None:
        self._names = names
        self._is_forced = is_forced
        self._text = ""
        self._content_sent = 0
        self._sent: list[int] = []  # characters of each call's arguments

    @property
    def has_calls(self) -> bool:
        return bool(self._sent)

    def push(self, text: str, is_last: bool = False) -> list[Delta]:
        """The deltas that have become certain."""
        if not self._names:
            return [Delta(content=text)] if text else []
        self._text += text
        content, calls = read_calls(self._text, self._names, is_last)
        deltas = [Delta(content="" if self._is_forced else content[self._content_sent :])]
        self._content_sent = len(content)
        for index, (name, arguments) in enumerate(calls):
            if index == len(self._sent):
                self._sent.append(0)
                head = FunctionDelta(name=name)
                deltas.append(_call_delta(index, head, id=new_id(), type="function"))
            piece = FunctionDelta(arguments=arguments[self._sent[index] :])
            self._sent[index] = max(self._sent[index], len(arguments))
            if piece.arguments:
                deltas.append(_call_delta(index, piece))
        return [delta for delta in deltas if delta.content or delta.tool_calls]


def read_calls(text: str, names: set[str], is_last: bool) -> tuple[str, list[tuple[str, str]]]:
    """(content, [(name, arguments)]) of an answer so far; more text only ever makes them longer.

    Unless the answer ends here, what may turn out to be no content is left out of it.
    """
    content, calls, at = "", list[tuple[str, str]](), 0
    while (tag := text.find(OPEN, at)) >= 0:
        content += text[at:tag]
        at = tag + len(OPEN)
        head = HEAD.match(text, at)
        if head is None and not is_last and len(text) - at < MAX_HEAD:
            at = len(text)
        if head is None or head[1] not in names:
            content += OPEN if at < len(text) or is_last else ""
            continue
        while head is not None and head[1] in names:
            end = _end_of_object(text, head.end())
            held = 0 if is_last or end < len(text) else _overlap(text, CLOSE)
            calls.append((head[1], text[head.end() : end - held]))
            head = NEXT.match(text, end)
        closed = text.find(CLOSE, end)
        at = len(text) if closed < 0 else closed + len(CLOSE)
    rest = text[at:]
    content += rest if is_last else rest[: len(rest) - _overlap(rest, OPEN)]
    return content.rstrip() if calls or not is_last else content, calls


def _end_of_object(text: str, start: int) -> int:
    """Where the JSON object at `start` ends, or where the call is closed before it does."""
    depth = 0
    for part in PARTS.finditer(text, start):
        if part.group() == CLOSE:
            return part.start()
        depth += {"{": 1, "}": -1}.get(part.group(), 0)
        if depth == 0:
            return part.end()
    return len(text)


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)


def _call_delta(index: int, function: FunctionDelta, **first: str) -> Delta:
    return Delta(tool_calls=[ToolCallDelta(index=index, function=function, **first)])


def new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def message_of(text: str, names: set[str], is_forced: bool = False) -> AnswerMessage:
    """A whole answer as a message."""
    if not names:
        return AnswerMessage(content=text)
    content, calls = read_calls(text, names, is_last=True)
    said = None if is_forced else content
    if not calls:
        return AnswerMessage(content=said)
    made = [ToolCall(id=new_id(), function=FunctionCall(name=n, arguments=a)) for n, a in calls]
    return AnswerMessage(content=said or None, tool_calls=made)
