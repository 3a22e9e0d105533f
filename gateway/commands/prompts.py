"""`glassgate prompts`: which versions there are, what each says, and which one a label means."""

import difflib
from pathlib import Path
from typing import Any

import click

from gateway.commands import CONFIG, by_me, changing, showing

NAME = click.argument("name", metavar="ID@VERSION")
LABEL = click.option("--label", default="production", show_default=True)
WHY = click.option("--why", required=True, help="The reason, kept in the audit.")


@click.group()
def prompts() -> None:
    """Versions of prompts, which are files, and their labels."""


@showing(prompts, "list")
def list_prompts(connection: Any, config: Any) -> list[dict[str, Any]]:
    """Each version with its labels."""
    from gateway.moves import prompt_overview

    rows = prompt_overview(connection, _all(config))
    return [{**row, "hash": row["hash"][:12]} for row in rows]


@prompts.command()
@NAME
@CONFIG
def show(name: str, config: Path | None) -> None:
    """The file of a version."""
    click.echo(_one(config, name).text, nl=False)


@prompts.command()
@click.argument("old", metavar="ID@VERSION")
@click.argument("new", metavar="ID@VERSION")
@CONFIG
def diff(old: str, new: str, config: Path | None) -> None:
    """What one version changed of another."""
    texts = [_one(config, name).text.splitlines() for name in (old, new)]
    for line in difflib.unified_diff(texts[0], texts[1], old, new, lineterm=""):
        click.echo(line)


@prompts.command()
@NAME
@click.option("--question", default="What is a decorator?", show_default=True)
@click.option("--context", type=click.File(), help="A file of passages.")
@click.option("--var", "pairs", multiple=True, metavar="NAME=JSON", help="A value of an input.")
@click.option("--tokenizer", help="A tokenizer.json to count with. [default: its releases']")
@CONFIG
def render(
    name: str, question: str, context: Any, pairs: tuple[str, ...], tokenizer: str | None,
    config: Path | None,
) -> None:  # fmt: skip
    """The messages that it makes, and the tokens of each part of them."""
    from gateway.commands import put_out
    from gateway.errors import GatewayError
    from gateway.prompts import Given, anatomy, compose
    from model.protocol.templates import Renderer, TemplateError

    prompt = _one(config, name)
    passages = context.read() if context else ""
    try:
        given = Given(
            [{"role": "user", "content": question}], prompt.read(_values(pairs)), passages
        )
        with Renderer() as renderer:
            messages = compose(prompt, given, renderer)
    except (TemplateError, GatewayError) as error:
        raise click.ClickException(str(error)) from error
    for message in messages:
        click.echo(f"{message['role']}:\n{message['content']}\n")
    path = tokenizer if tokenizer is not None else _tokenizer(config, name)
    put_out(anatomy(prompt, given, messages, path), "table")


@changing(prompts, "label", NAME, LABEL, WHY)
def label_prompt(connection: Any, config: Any, name: str, label: str, why: str) -> str:
    """Point a label to a version."""
    from gateway import moves

    it = moves.label_prompt(connection, by_me(why), _all(config), name, label)
    return f"{it.owner}@{it.label}: {it.previous or 'nothing'} → {it.target}"


@changing(prompts, "rollback", click.argument("id"), LABEL, WHY)
def rollback_prompt(connection: Any, config: Any, id: str, label: str, why: str) -> str:  # noqa: A002
    """Point a label back to where it was before."""
    from gateway import moves

    it = moves.rollback_prompt(connection, by_me(why), _all(config), id, label)
    return f"{it.owner}@{it.label}: back to {it.target}"


def _all(config: Any) -> Any:
    from gateway.prompt_file import load_folder

    return load_folder(Path(config.prompts.folder))


def _one(path: Path | None, name: str) -> Any:
    from gateway.config_file import ConfigError, load

    try:
        found = _all(load(path).config)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    if name not in found:
        raise click.ClickException(f"there is no prompt {name!r}; there are: {', '.join(found)}")
    return found[name]


def _values(pairs: tuple[str, ...]) -> dict[str, Any]:
    """What is no JSON is a text."""
    import msgspec

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter("write NAME=VALUE", param_hint="--var")
        try:
            values[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            values[name] = text
    return values


def _tokenizer(path: Path | None, name: str) -> str:
    """Of an upstream that serves a release with this prompt; "" where none counts tokens."""
    from gateway.config_file import ConfigError, load
    from gateway.setup import make_setup

    try:
        setup = make_setup(load(path))
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    mine = [it for it in setup.config.releases.values() if it.prompt == name]
    return next(filter(None, (setup.targets[it.upstream].tokenizer for it in mine)), "")
