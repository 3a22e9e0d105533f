"""From what a client wrote to the token ids of a prompt.

What a client wrote into a message is never read as a control token: `<|im_end|>` inside a message
is ten characters, not the end of the message. The prompt of a text completion is the whole context,
so there control tokens count.
"""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

from model.protocol.shapes import MAX_PROMPTS, ChatRequest, Json, Message, Prompt
from model.server.errors import BadRequest, ContextTooLong
from model.server.served import Served
from model.server.tools import announce, offered_tools, with_objects

T = TypeVar("T")

INLINE_CHARS = 4096  # longer texts are tokenised in a thread of their own
MARK = re.compile("\ue000(\\d+)\ue001")  # stands for a control token's text while rendering


async def chat_prompt(served: Served, request: ChatRequest, body: Json) -> list[int]:
    """The rendered conversation as ids."""
    if served.chat_template is None:
        raise BadRequest(f"the model '{served.name}' has no chat template", "messages")
    if request.continue_final_message and request.add_generation_prompt:
        message = "'continue_final_message' excludes 'add_generation_prompt'"
        raise BadRequest(message, "continue_final_message")
    return await asyncio.to_thread(_chat_ids, served, served.chat_template, request, body)


def _chat_ids(served: Served, template: str, request: ChatRequest, body: Json) -> list[int]:
    marked: list[str] = []  # texts of control tokens in messages, by the number in their mark

    def mark(match: re.Match[str]) -> str:
        marked.append(match.group())
        return f"\ue000{len(marked) - 1}\ue001"

    messages = [
        {
            **raw,
            "role": _role(message),
            "content": served.special_texts.sub(mark, _text(message, i)),
        }
        for i, (raw, message) in enumerate(zip(body["messages"], request.messages, strict=True))
    ]
    text = _render(served, template, request, messages, body.get("tools") or [])
    ids: list[int] = []
    for i, piece in enumerate(MARK.split(text)):
        if i % 2:
            token_text = marked[int(piece)] if int(piece) < len(marked) else piece
            ids += served.tokenizer.encode(token_text, allow_special=False)
        else:
            ids += served.tokenizer.encode(piece, bool(request.add_special_tokens) and i == 0)
    return fit(served, ids, request.truncate_prompt_tokens, "messages")


def _render(
    served: Served, template: str, request: ChatRequest, messages: list[Json], tools: list[Json]
) -> str:
    names = {tool.function.name for tool in offered_tools(request)}
    offered = [tool for tool in tools if tool["function"]["name"] in names]
    if "tools" in template:
        messages = [with_objects(message) for message in messages]
    elif offered:
        messages = announce(messages, offered)
    continues = bool(request.continue_final_message)
    tokenizer = served.tokenizer
    variables = (request.chat_template_kwargs or {}) | {
        "messages": messages,
        "tools": offered or None,
        "documents": None,
        "add_generation_prompt": request.add_generation_prompt is not False and not continues,
        "bos_token": "" if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id),
        "eos_token": "" if tokenizer.eos_id is None else tokenizer.token_text(tokenizer.eos_id),
    }
    text = served.renderer.render(template, variables, strict=False)
    return _up_to(text, str(messages[-1]["content"])) if continues else text


async def text_prompts(
    served: Served, prompt: Prompt, adds_special: bool, truncate: int | None
) -> list[list[int]]:
    """The ids of each prompt: one text, several, one list of ids, or several."""
    texts = listed(prompt, "prompt")

    def encode() -> list[list[int]]:
        return [
            served.tokenizer.encode(one, adds_special) if isinstance(one, str) else one
            for one in texts
        ]

    ids = await off_loop_if_long(encode, sum(map(len, texts)))
    return [fit(served, one, truncate, "prompt") for one in ids]


def listed(prompt: Prompt, param: str) -> list[str | list[int]]:
    """The four forms of a prompt as a list of texts and lists of ids."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [one for one in prompt if isinstance(one, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise BadRequest(f"'{param}' mixes token ids with texts or lists", param)
    if len(prompt) > MAX_PROMPTS:
        raise BadRequest(f"'{param}' has {len(prompt)} items, at most {MAX_PROMPTS}", param)
    return [one for one in prompt if not isinstance(one, int)]


async def off_loop_if_long(work: Callable[[], T], num_chars: int) -> T:
    """work(), in a thread of its own if there is much to do."""
    return work() if num_chars <= INLINE_CHARS else await asyncio.to_thread(work)


def fit(served: Served, ids: list[int], truncate: int | None, param: str) -> list[int]:
    """The last `truncate` ids, if that was asked for (-1: as many as the context holds)."""
    longest = served.config.max_model_len
    if truncate is not None:
        ids = ids[max(0, len(ids) - (longest - 1 if truncate < 0 else truncate)) :]
    if len(ids) >= longest:
        raise ContextTooLong(
            f"the prompt has {len(ids)} tokens; the context holds {longest}, prompt and answer",
            param,
        )
    return ids


def _text(message: Message, i: int) -> str:
    """The content as one text; parts are joined by line ends, as vLLM does."""
    if message.content is None and message.role != "assistant":
        raise BadRequest(f"'messages[{i}].content' is missing", f"messages[{i}].content")
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    for j, part in enumerate(message.content):
        if part.type != "text":
            raise BadRequest(
                f"content of type '{part.type[:40]}' is not supported",
                f"messages[{i}].content[{j}].type",
                "unsupported",
            )
        if part.text is None:
            where = f"messages[{i}].content[{j}].text"
            raise BadRequest(f"'{where}' is missing", where)
    return "\n".join(part.text or "" for part in message.content)


def _role(message: Message) -> str:
    """Templates know the role `developer` by its older name."""
    return "system" if message.role == "developer" else message.role


def _up_to(text: str, content: str) -> str:
    """A rendered conversation without what the template puts after its last content."""
    end = text.rfind(content.strip())
    if end < 0:
        raise BadRequest("the template changes the final message", "continue_final_message")
    return text[: end + len(content.strip())]
