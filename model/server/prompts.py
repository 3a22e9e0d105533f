"""From what a client wrote to the token ids of a prompt.

What a client wrote into a message is never read as a control token: `<|im_end|>` inside a message
is ten characters, not the end of the message. The prompt of a text completion is the whole context,
so there control tokens count.
"""

import asyncio
import re

from model.protocol.shapes import ChatRequest, Json, Message, Prompt
from model.server.errors import BadRequest, ContextTooLong
from model.server.served import Served
from model.server.tools import announce, offered_tools, with_objects

INLINE_CHARS = 4096  # longer texts are tokenised in a thread of their own
MARK = re.compile("\ue000(\\d+)\ue001")  # stands for a control token's text while rendering


async def chat_prompt(served: Served, request: ChatRequest, body: Json) -> list[int]:
    """The rendered conversation as ids."""
    if served.chat_template is None:
        raise BadRequest(f"the model '{served.name}' has no chat template", "messages")
    found: list[str] = []  # texts of control tokens in messages, by the number in their mark

    def mark(match: re.Match[str]) -> str:
        found.append(match.group())
        return f"\ue000{len(found) - 1}\ue001"

    messages = [
        {**raw, "role": _role(message), "content": served.special_texts.sub(mark, text)}
        for i, (raw, message) in enumerate(zip(body["messages"], request.messages, strict=True))
        for text in [_text(message, i)]
    ]
    names = {tool.function.name for tool in offered_tools(request)}
    offered = [tool for tool in body.get("tools") or () if tool["function"]["name"] in names]
    if "tools" in served.chat_template:
        messages = [with_objects(message) for message in messages]
    elif offered:
        messages = announce(messages, offered)
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        message = "'continue_final_message' excludes 'add_generation_prompt'"
        raise BadRequest(message, "continue_final_message")
    variables = (request.chat_template_kwargs or {}) | {
        "messages": messages,
        "tools": offered or None,
        "documents": None,
        "add_generation_prompt": request.add_generation_prompt is not False and not continues,
        "bos_token": _token(served, served.tokenizer.bos_id),
        "eos_token": _token(served, served.tokenizer.eos_id),
    }
    text = await served.renderer.render_async(served.chat_template, variables, strict=False)
    if continues:
        text = _up_to(text, str(messages[-1]["content"]))
    ids: list[int] = []
    for i, piece in enumerate(MARK.split(text)):
        if i % 2:
            token_text = found[int(piece)] if int(piece) < len(found) else piece
            ids += await encode(served, token_text, False, allow_special=False)
        else:
            ids += await encode(served, piece, bool(request.add_special_tokens) and i == 0)
    return fit(served, ids, request.truncate_prompt_tokens, "messages")


async def text_prompts(
    served: Served, prompt: Prompt, adds_special: bool, truncate: int | None
) -> list[list[int]]:
    """The ids of each prompt: one text, several, one list of ids, or several."""
    return [
        fit(
            served,
            await encode(served, one, adds_special) if isinstance(one, str) else one,
            truncate,
            "prompt",
        )
        for one in listed(prompt, "prompt")
    ]


def listed(prompt: Prompt, param: str) -> list[str | list[int]]:
    """The four forms of a prompt as a list of texts and lists of ids."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [one for one in prompt if isinstance(one, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise BadRequest(f"'{param}' mixes token ids with texts or lists", param)
    return [one for one in prompt if not isinstance(one, int)]


async def encode(
    served: Served, text: str, adds_special: bool, allow_special: bool = True
) -> list[int]:
    """Token ids; a long text does not hold up the event loop."""
    if len(text) <= INLINE_CHARS:
        return served.tokenizer.encode(text, adds_special, allow_special)
    return await asyncio.to_thread(served.tokenizer.encode, text, adds_special, allow_special)


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
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    for j, part in enumerate(message.content):
        if part.type != "text":
            raise BadRequest(
                f"content of type '{part.type[:40]}' is not supported",
                f"messages[{i}].content[{j}].type",
                "unsupported",
            )
    return "\n".join(part.text or "" for part in message.content)


def _role(message: Message) -> str:
    """Templates know the role `developer` by its older name."""
    return "system" if message.role == "developer" else message.role


def _token(served: Served, token_id: int | None) -> str:
    return "" if token_id is None else served.tokenizer.token_text(token_id)


def _up_to(text: str, content: str) -> str:
    """A rendered conversation without what the template puts after its last content."""
    end = text.rfind(content.strip())
    if end < 0:
        raise BadRequest("the template changes the final message", "continue_final_message")
    return text[: end + len(content.strip())]
