"""The prompt of a request: which version, with which values, and the messages that come of it.

Which is asked for may be the release's or the request's, by version or by a label in the store.
Text from clients and documents is only ever a variable's value; where a message begins is said by
the template alone, with a word that is drawn anew for every rendering.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.call import Call, PromptRef
from gateway.counting import body_bound, count
from gateway.errors import BadRequest, NotFound
from gateway.plan import targets_of
from gateway.prompt_file import CUT, TURNS, Prompt
from gateway.releases import PRODUCTION
from gateway.setup import Setup
from gateway.store.mirror import Mirror
from model.protocol.templates import Renderer, TemplateError, TemplateFailed, TemplateLimit

Message = dict[str, Any]
SYSTEM = ("system", "developer")
ROUTES = ("chat", "responses")


class Given(msgspec.Struct, frozen=True):
    """What a request puts into a template."""

    messages: Sequence[Message]
    values: Mapping[str, Any] = {}
    context: str = ""


def pick(call: Call, setup: Setup, mirror: Mirror) -> None:
    """Write the prompt and the values of its inputs into `call`; nothing where none is named.

    Raises NotFound, and BadRequest with the path of a variable that is missing or wrong.
    """
    name = setup.config.releases[call.release].prompt
    if call.asked_prompt is not None:
        name = _name_of(call.asked_prompt, name, mirror)
    if not name or call.route not in ROUTES:
        return
    prompt = setup.prompts.get(name)
    if prompt is None:
        raise NotFound(f"there is no prompt {name!r}", param="prompt", code="prompt_not_found")
    call.prompt = prompt
    call.variables = prompt.read(call.asked_prompt.variables or {} if call.asked_prompt else {})
    call.reply_headers.append(("x-glassgate-prompt", name))


def _name_of(asked: PromptRef, own: str, mirror: Mirror) -> str:
    """Who names neither version nor label means the release's own, or what is in production."""
    if asked.version and asked.label:
        raise BadRequest("name a version or a label, not both", param="prompt.label")
    if asked.version:
        return f"{asked.id}@{asked.version}"
    if not asked.label and own.partition("@")[0] == asked.id:
        return own
    label = asked.label or PRODUCTION
    version = mirror.prompt_labels.get(asked.id, {}).get(label)
    if version is None:
        text = f"there is no prompt {asked.id!r} with the label {label!r}"
        raise NotFound(text, param="prompt", code="prompt_not_found")
    return f"{asked.id}@{version}"


async def render(call: Call, setup: Setup, renderer: Renderer) -> None:
    """Write the messages for the upstream into `call`; its bound becomes that of what is sent.

    Raises BadRequest when the template refuses, fails, or takes more than it may.
    """
    if call.prompt is None:
        return
    context = call.context.text if call.context else ""
    given = Given(call.body["messages"], call.variables, context)
    target = targets_of(call, setup)[0]
    try:
        call.messages = await asyncio.to_thread(compose, call.prompt, given, renderer)
        sent = await body_bound({**call.body, "prompt": None, "messages": call.messages}, target)
        if sent > call.bound_tokens + await body_bound({"input": context}, target):
            raise TemplateLimit("it repeats more of the request than was reserved for it")
    except TemplateError as error:
        code = "template_limit" if isinstance(error, TemplateLimit) else "template_failed"
        text = f"the prompt {call.prompt.name} cannot be rendered: {error}"
        raise BadRequest(text, param="prompt", code=code) from error
    call.bound_tokens = sent
    call.mark("render")


def compose(prompt: Prompt, given: Given, renderer: Renderer) -> list[Message]:
    """The messages of one request. Blocks while the template is rendered. Raises TemplateError."""
    turns = [it for it in given.messages if it.get("role") not in SYSTEM]
    last = max((i for i, it in enumerate(turns) if it.get("role") == "user"), default=len(turns))
    known = {
        "messages": turns,
        "history": turns[:last] + turns[last + 1 :],
        "examples": msgspec.to_builtins(prompt.front.examples),
        "question": question_of(given.messages, is_all=not prompt.has_all_turns),
        "context": given.context,
        "output": prompt.front.output,
        **given.values,
    }
    cut = secrets.token_hex(8)
    text = renderer.render(prompt.source, {**{it: known[it] for it in prompt.uses}, CUT: cut})
    known["examples"] = _turns_of(prompt)
    made: list[Message] = []
    for piece in text.split(cut)[1:]:
        role, _, content = piece.partition(":")
        if role not in TURNS:
            made += [{"role": role, "content": content.strip()}] if content.strip() else []
        elif content.strip():
            raise TemplateFailed(f"text after {{{{ {role} }}}} belongs to no section")
        else:
            made += known[role]
    theirs = [
        _text(it, f"messages[{i}].content", is_all=True)
        for i, it in enumerate(given.messages)
        if it.get("role") in SYSTEM
    ]
    return _with_system(made, theirs)


def anatomy(
    prompt: Prompt, given: Given, messages: Sequence[Message], tokenizer: str
) -> list[dict[str, Any]]:
    """Tokens of each part of the messages; bytes, which bound them, without a tokenizer.

    What belongs to no other part is the system's, whichever role says it.
    """
    rest = "\n".join(_text(it, "", is_all=False) for it in messages)
    examples = [text for it in prompt.front.examples for text in (it.user, it.assistant)]
    parts: dict[str, list[str]] = {
        "system": [],
        "context": [given.context],
        "examples": examples,
        "question": [question_of(given.messages)],
        "inputs": [value for value in given.values.values() if isinstance(value, str)],
        "output": [prompt.front.output],
    }
    tokens = dict.fromkeys(parts, 0)
    texts = [(len(text), name, text) for name, many in parts.items() for text in many if text]
    for _, name, text in sorted(texts, reverse=True):  # a short text may be within a longer one
        if text in rest:
            rest = rest.replace(text, "", 1)
            tokens[name] += count(text, tokenizer)
    tokens["system"] = count(rest.strip(), tokenizer)
    return [{"part": it, "tokens" if tokenizer else "bytes": n} for it, n in tokens.items()]


def question_of(messages: Sequence[Message], is_all: bool = False) -> str:
    """The last user's text; `is_all` refuses one that is not text alone."""
    for i, message in reversed(list(enumerate(messages))):
        if message.get("role") == "user":
            return _text(message, f"messages[{i}].content", is_all)
    return ""


def _text(message: Message, path: str, is_all: bool) -> str:
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    if is_all and len(said) < len(parts):
        raise BadRequest("the prompt of this request takes nothing but text", param=path)
    return "\n".join(said)


def _turns_of(prompt: Prompt) -> list[Message]:
    return [
        {"role": role, "content": getattr(example, role)}
        for example in prompt.front.examples
        for role in ("user", "assistant")
    ]


def _with_system(made: list[Message], theirs: list[str]) -> list[Message]:
    """The client's own system text follows the prompt's, in one message."""
    if not theirs:
        return made
    own = [it["content"] for it in made if it["role"] == "system"]
    rest = [it for it in made if it["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(own + theirs)}, *rest]
