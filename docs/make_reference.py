"""Writes docs/reference.md from the code: `make docs`. A test fails when the page is behind.

Knows where the truth of each table is: click commands, the config structs and the comments beside
their fields, the tables of routes, the shapes that the admin API reads, the metric registries, the
error classes.
"""

import ast
import inspect
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec

import gateway.config
import gateway.errors
import model.__main__
import model.server.errors
from gateway import admin, cli
from gateway.app import DOORS
from gateway.metrics import Metrics
from gateway.state import FIXED
from model.engine.config import EngineConfig
from model.server.metrics import Metrics as ServerMetrics
from model.server.routes import ENDPOINTS

PAGE = Path(__file__).with_name("reference.md")
RELOAD = """\
A changed file is taken within a second, whole or not at all: while a key marked `restart` differs
from what the gateway was started with, the file is refused with all its other changes. A release
and a prompt are immutable: what changes one needs a new name or version."""
READ = (
    "Bodies are JSON objects. A field that is not here is refused; a route that is not, reads none."
)
Rows = Iterable[tuple[str, ...]]


def table(head: tuple[str, ...], rows: Rows) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *map(line, rows)])


def commands(name: str, command: click.Command) -> Iterator[str]:
    """A heading and a table of flags for each command below `command`."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in sorted(command.list_commands(context)):
            if child := command.get_command(context, word):
                yield from commands(f"{name} {word}", child)
        return
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            default = parameter.default if isinstance(parameter.default, str | int) else ""
            variables = parameter.envvar if isinstance(parameter.envvar, str) else ""
            names = ", ".join(f"`{word}`" for word in parameter.opts + parameter.secondary_opts)
            shown = "" if default in ("", False) else f"`{default}`"
            rows.append((names, parameter.help or "", shown, variables and f"`{variables}`"))
        else:
            rows.append((f"`{parameter.human_readable_name}`", "argument", "", ""))
    yield f"### `{name}`\n\n{(command.help or '').strip()}\n"
    if rows:
        yield table(("flag", "what", "default", "variable"), rows) + "\n"


def comments(module: ModuleType) -> dict[tuple[str, int], str]:
    """(module, line) → the comment at the end of that line."""
    source = inspect.getsource(module)
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    return {
        (module.__name__, token.start[0]): token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def fields(module: ModuleType) -> dict[str, dict[str, tuple[str, str]]]:
    """Class → field → (default as written, comment) for the structs of a module."""
    source, notes = inspect.getsource(module), comments(module)
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                item.target.id: (
                    ast.unparse(item.value) if item.value else "required",
                    notes.get((module.__name__, item.end_lineno or 0), ""),
                )
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    return found


def config_keys() -> Iterator[tuple[str, str, str, str]]:
    """(key, default, meaning, reload) of everything that gateway.toml may say."""
    known = fields(gateway.config)

    def walk(struct: Any, path: str) -> Iterator[tuple[str, str, str, str]]:
        for field in msgspec.structs.fields(struct):
            inner, below = section(field.type)
            if inner is None:
                default, note = known[struct.__name__][field.name]
                restart = "restart" if path.partition(".")[0] in FIXED else ""
                yield f"`{path}{field.name}`", f"`{default}`", note, restart
            else:
                yield from walk(inner, f"{path}{field.name}.{below}")

    yield from walk(gateway.config.Config, "")


def section(kind: Any) -> tuple[Any, str]:
    """The struct inside an annotation, and what stands between its key and its fields."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind, ""
    for argument in getattr(kind, "__args__", ()):
        inner, _ = section(argument)
        if inner is not None:
            below = {dict: "NAME.", tuple: "[]."}.get(getattr(kind, "__origin__", None), "")
            return inner, below
    return None, ""


def admin_fields() -> Rows:
    """(route, where, field, value, default, meaning) of all that the admin API reads."""
    for method, path, endpoint in admin.ROUTES:
        for where, shape in asked_by(endpoint):
            meaning = " ".join((shape.__doc__ or "").split())
            parts = msgspec.json.schema(shape)["$defs"][shape.__name__]
            for name, schema in parts["properties"].items():
                is_needed = name in parts.get("required", ())
                default = "required" if is_needed else f"`{schema['default']!r}`"
                yield f"`{method} {path}`", where, f"`{name}`", value(schema), default, meaning
                meaning = ""  # once for all fields


def asked_by(endpoint: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The shapes that an endpoint hands to `body_of` and `query_of`."""
    for node in ast.walk(ast.parse(inspect.getsource(endpoint))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("body_of", "query_of"):
            where = ast.unparse(node.func).removesuffix("_of")
            yield where, reduce(getattr, ast.unparse(node.args[1]).split("."), admin)


def value(schema: Any) -> str:
    """A JSON Schema in words."""
    if "anyOf" in schema:
        return " or ".join(map(value, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{it}`" for it in schema["enum"])
    if "items" in schema:
        return f"list of {value(schema['items'])}s"
    if "additionalProperties" in schema:
        return f"object of {value(schema['additionalProperties'])}s"
    bounds = {
        "minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}",
        "minLength": "from {}", "maxLength": "to {} characters",
    }  # fmt: skip
    said = [text.format(schema[name]) for name, text in bounds.items() if name in schema]
    return " ".join([schema.get("format", schema["type"]), *said])


def errors(module: ModuleType) -> Rows:
    for name, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, Exception) and kind.__module__ == module.__name__:
            status, type_, code = (getattr(kind, a, None) for a in ("status", "type", "code"))
            yield f"`{name}`", str(status or ""), f"`{type_}`" if type_ else "", f"`{code or ''}`"


def metrics(registry: Any) -> Rows:
    for metric in sorted(registry.collect(), key=lambda metric: metric.name):
        yield f"`{metric.name}`", metric.type, metric.documentation


def page() -> str:
    doors = [(f"`{d.method} {d.path}`", d.scope) for d in DOORS]
    served = ServerMetrics("smollm2", EngineConfig(context_length=1))
    parts = [
        "# Reference\n\nWritten from the code by `make docs`; a test holds it against the code.\n",
        "## Commands\n",
        *commands("glassgate", cli.main),
        *commands("python -m model", model.__main__.main),
        f"## Config keys of `gateway.toml`\n\n{RELOAD}\n",
        table(("key", "default", "meaning", "change"), config_keys()) + "\n",
        "## Routes of the gateway\n\n`open` needs no key; a route needs its scope.\n",
        table(("route", "scope"), doors) + "\n",
        f"## What the admin API reads\n\n{READ}\n",
        table(("route", "in", "field", "value", "default", "meaning"), admin_fields()) + "\n",
        "## Routes of the model server\n",
        table(("route",), [(f"`{it.method} {it.path}`",) for it in ENDPOINTS]) + "\n",
        "## Metrics of the gateway\n",
        table(("name", "type", "meaning"), metrics(Metrics().registry)) + "\n",
        "## Metrics of the model server\n",
        table(("name", "type", "meaning"), metrics(served.registry)) + "\n",
        "## Errors of the gateway\n",
        table(("class", "status", "type", "code"), errors(gateway.errors)) + "\n",
        "## Errors of the model server\n",
        table(("class", "status", "type", "code"), errors(model.server.errors)),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
