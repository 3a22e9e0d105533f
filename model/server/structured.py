"""From the fields that constrain an answer's form to a compiled grammar of the engine."""

import asyncio
import json
from typing import Any

from model.engine.errors import InvalidGrammar
from model.engine.grammar import Grammar, Kind
from model.protocol.shapes import Sampled
from model.server.errors import BadRequest
from model.server.served import Served


async def grammar_of(served: Served, request: Sampled, forced: str | None = None) -> Grammar | None:
    """The grammar that the request asks for; `forced` is the Lark of tool calls that must come.

    Compiled in a thread of its own, remembered by its source. Raises BadRequest: an answer is
    never left unconstrained because its constraint could not be understood.
    """
    asked = [*_from_format(request), *_from_outputs(request)]
    if forced is not None:
        asked.append(("tool_choice", "lark", forced))
    if len(asked) > 1:
        message = f"'{asked[1][0]}' cannot be joined with '{asked[0][0]}'"
        raise BadRequest(message, asked[1][0], "unsupported")
    if asked and not served.config.samples:
        message = f"'{asked[0][0]}' needs logits, and this model has none"
        raise BadRequest(message, asked[0][0], "unsupported")
    for param, kind, source in asked:
        try:
            return await asyncio.to_thread(served.grammars.compile, kind, source)
        except InvalidGrammar as error:
            raise BadRequest(f"Invalid '{param}': {error}", param, "invalid_grammar") from None
    return None


Asked = list[tuple[str, Kind, str]]  # (param, kind of grammar, its source)


def _from_format(request: Sampled) -> Asked:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [("response_format", "json_object", "")]
    if wanted.json_schema is None:
        message = "'response_format.json_schema' is missing"
        raise BadRequest(message, "response_format.json_schema")
    source = json.dumps(wanted.json_schema.schema)
    return [("response_format.json_schema.schema", "json_schema", source)]


def _from_outputs(request: Sampled) -> Asked:
    wanted = request.structured_outputs
    if wanted is None:
        return []
    forms: list[tuple[str, Kind, Any]] = [
        ("json", "json_schema", wanted.json),
        ("regex", "regex", wanted.regex),
        ("choice", "choice", wanted.choice),
        ("grammar", "lark", wanted.grammar),
        ("json_object", "json_object", "" if wanted.json_object else None),
    ]
    given = [
        (f"structured_outputs.{name}", kind, form if isinstance(form, str) else json.dumps(form))
        for name, kind, form in forms
        if form is not None
    ]
    if not given:
        raise BadRequest("'structured_outputs' constrains nothing", "structured_outputs")
    return given
