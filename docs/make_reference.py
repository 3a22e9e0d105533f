"""Writes docs/reference.md from the code: `make docs`. A test fails when the page is behind.

Knows where the truth of each table is: click commands, the config structs and the comments beside
their fields, the tables of routes, the metric registries, the error classes.
"""

import ast
import inspect
import tokenize
from collections.abc import Iterable, Iterator
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
from gateway import cli
from gateway.app import DOORS
from gateway.metrics import Metrics
from model.engine.config import EngineConfig
from model.server.metrics import Metrics as ServerMetrics
from model.server.routes import ENDPOINTS

PAGE = Path(__file__).with_name("reference.md")
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


def config_keys() -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of everything that gateway.toml may say."""
    known = fields(gateway.config)

    def walk(struct: Any, path: str) -> Iterator[tuple[str, str, str]]:
        for field in msgspec.structs.fields(struct):
            inner, below = section(field.type)
            if inner is None:
                default, note = known[struct.__name__][field.name]
                yield f"`{path}{field.name}`", f"`{default}`", note
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
        "## Config keys of `gateway.toml`\n",
        table(("key", "default", "meaning"), config_keys()) + "\n",
        "## Routes of the gateway\n\n`open` needs no key; a route needs its scope.\n",
        table(("route", "scope"), doors) + "\n",
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
