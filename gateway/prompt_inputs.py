"""The inputs that a prompt declares, as JSON Schema, and the type that holds a request to them.

A keyword that could not be held to is refused when the prompt is read, not passed over.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.config_file import ConfigError

Schema = Mapping[str, Any]

PLAIN: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "object": dict[str, Any],
    "null": None,
}
BOUNDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
KNOWN = BOUNDS.keys() | {
    "type", "enum", "items", "properties", "required", "default", "title", "description",
}  # fmt: skip


def defaults(inputs: Mapping[str, Schema]) -> dict[str, Any]:
    return {name: it["default"] for name, it in inputs.items() if "default" in it}


def shape_of(inputs: Mapping[str, Schema]) -> type[msgspec.Struct]:
    """What a body's `prompt.variables` is, from its top, so that complaints have the whole path.

    Raises ConfigError, also for a default that its own schema refuses.
    """
    path = "inputs"
    try:
        for name, it in inputs.items():
            path = f"inputs.{name}"
            decoder = msgspec.json.Decoder(_type(it, path))  # says when a bound fits no such type
            if "default" in it:
                decoder.decode(msgspec.json.encode(it["default"]))
        variables = _type({"properties": inputs, "required": list(inputs)}, "inputs")
        outer = msgspec.defstruct("Prompt", [("variables", variables)])
        return msgspec.defstruct("Body", [("prompt", outer)])
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _type(schema: Schema, path: str) -> Any:
    if unknown := schema.keys() - KNOWN:
        raise ConfigError(f"{path}.{min(unknown)}: this keyword of JSON Schema is not known here")
    bounds = {BOUNDS[name]: value for name, value in schema.items() if name in BOUNDS}
    made = _unbound(schema, path)
    return Annotated[made, Meta(**bounds)] if bounds else made


def _unbound(schema: Schema, path: str) -> Any:
    kind = schema.get("type")
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if "properties" in schema or "required" in schema:
        return _object(schema, path)
    if kind == "array" or (kind is None and "items" in schema):
        return list[_type(schema.get("items", {}), f"{path}.items")]  # type: ignore[misc]
    if kind is None:
        return Any
    if kind not in PLAIN:
        raise ConfigError(f"{path}.type: {kind!r} is no type")
    return PLAIN[kind]


def _object(schema: Schema, path: str) -> type[msgspec.Struct]:
    required = schema.get("required", ())
    parts = {name: {} for name in required} | schema.get("properties", {})
    fields, names = list[Any](), dict[str, str]()
    for number, (name, it) in enumerate(parts.items()):  # a name need not be one in Python
        field, made = f"field_{number}", _type(it, f"{path}.{name}")
        names[field] = name
        is_free = name not in required
        fields.append(
            (field, made | msgspec.UnsetType, msgspec.UNSET) if is_free else (field, made)
        )
    return msgspec.defstruct("Object", fields, kw_only=True, rename=names)
