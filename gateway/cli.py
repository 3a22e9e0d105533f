"""The command `glassgate`. Subcommands of a subject live in its module and are attached here."""

# ruff: noqa: S603, S606 - the only program that is started is this Python

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway import logs
from gateway.commands.doctor import doctor
from gateway.commands.evals import evals
from gateway.commands.ingest import ingest
from gateway.commands.keys import keys, teams
from gateway.commands.prompts import prompts
from gateway.commands.releases import audit, releases
from gateway.commands.store import store
from gateway.commands.trace import trace
from gateway.commands.usage import budgets, usage
from gateway.config_file import DEFAULT_PATH, ConfigError, load
from gateway.errors import GatewayError
from gateway.local import LocalError

LISTEN = [
    click.option(
        "--config", type=click.Path(path_type=Path), help="The TOML file. [env: GLASSGATE_CONFIG]"
    ),
    click.option("--host", help="Where to listen. [env: GLASSGATE_HOST]"),
    click.option("--port", type=int, help="Where to listen. [env: GLASSGATE_PORT]"),
]
CHILD = [
    click.option("--model", help="Chat model: a name, a GGUF file or a Hugging Face folder."),
    click.option("--embedder", help="Embedding model; empty for none."),
    click.option("--model-port", type=int, help="The model server's. [env: GLASSGATE_MODEL_PORT]"),
    click.option("--threads", type=int, help="The model server's. [env: GLASSGATE_THREADS]"),
    click.option(
        "--home",
        type=click.Path(path_type=Path),
        help="Folder of models and kernels. [env: GLASSGATE_HOME]",
    ),
    click.option(
        "--emulate",
        is_flag=False,
        flag_value="h100-llama-8b",
        help="No weights: the machine of a profile, by name or file. [default: an H100]",
    ),
]
EMULATED_STORE = {
    "store.url": "sqlite:///var/emulated.db",
    "store.journal": "var/emulated-journal",
}


def with_options(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glassgate")
def main() -> None:
    """Glassgate: a real language model, and a production gateway in front of it."""


@main.command()
@with_options(LISTEN + CHILD)
@click.option("--tiny", is_flag=True, help="A network of a million weights, which is here already.")
def serve(
    config: Path | None, home: Path | None, model: str | None, embedder: str | None, **flags: Any
) -> None:
    """The gateway and one model server, which is pulled first if it is not here.

    With --emulate nothing is pulled, and what is made up goes into a store of its own.
    """
    if home is not None:
        os.environ["GLASSGATE_HOME"] = str(home)
    over = {**_server_flags(flags), "local.model": model, "local.embedder": embedder}
    over |= {"local.port": flags["model_port"], "local.threads": flags["threads"]}
    if flags["tiny"]:
        config = config or DEFAULT_PATH.parent / "tiny" / "gateway.toml"
    if flags["emulate"]:
        over |= {"local.profile": _profile(flags["emulate"])}
    _run(config, over, with_local=True)


@main.command()
@with_options(LISTEN)
def gateway(config: Path | None, **flags: Any) -> None:
    """The gateway alone, in front of the upstreams of its config."""
    _run(config, _server_flags(flags), with_local=False)


@main.command()
@click.option("--url", help="A gateway that runs. [default: the config's host and port]")
@click.option("--key", envvar="GLASSGATE_KEY", default="", help="Your key, if it wants one.")
@click.option("--family", default="", help="Whom to talk to. [default: the first family]")
@with_options(LISTEN[:1])
def chat(config: Path | None, url: str | None, key: str, family: str) -> None:
    """Talk to a model in the terminal; a gateway is started if none runs."""
    from gateway.terminal import Client, Gone, gateway, talk

    try:
        server = load(config).config.server
        client = Client(url or f"http://{server.host}:{server.port}", key)
        with gateway(client, ["--config", str(config)] if config else []):
            talk(client, family or client.first_model())
    except (ConfigError, Gone) as error:
        raise click.ClickException(str(error)) from error


def _profile(name: str) -> str:
    """The file of a shipped profile's name, else the name itself."""
    shipped = DEFAULT_PATH.parent / "profiles" / f"{name}.toml"
    return str(shipped) if shipped.is_file() else name


def _server_flags(flags: dict[str, Any]) -> dict[str, object]:
    return {"server.host": flags["host"], "server.port": flags["port"]}


def _run(config: Path | None, flags: dict[str, object], with_local: bool) -> None:
    from gateway.serve import ServeError
    from gateway.serve import serve as run

    try:
        loaded = load(config, flags)
        local = loaded.config.local if with_local else None
        if local is not None and not local.profile:
            _pull(local.model, local.embedder)
        elif local is not None and "store.url" not in loaded.origins:
            loaded = load(config, flags | EMULATED_STORE)
        logs.set_up()
        run(loaded, with_local, lambda line: click.echo(line, err=True))
    except (ConfigError, LocalError, ServeError, GatewayError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


def _pull(*names: str) -> None:
    """In the foreground, with its progress bar; what is here already costs nothing."""
    here = ("tiny", "tiny-random")
    missing = [name for name in names if name and not Path(name).exists() and name not in here]
    if missing:
        done = subprocess.run([sys.executable, "-m", "model", "pull", *missing], check=False)
        if done.returncode:
            sys.exit(done.returncode)


def _model_command(name: str, there: str, meaning: str) -> click.Command:
    """What needs a network runs in a process of its own, `python -m model`."""

    @click.command(
        name,
        help=meaning,
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> NoReturn:
        os.execv(sys.executable, [sys.executable, "-m", "model", there, *words])

    return command


for _command in (
    keys,
    teams,
    prompts,
    releases,
    audit,
    usage,
    budgets,
    trace,
    ingest,
    evals,
    doctor,
    store,
):
    main.add_command(_command)
for _words in (
    ("model", "serve", "The model server alone."),
    ("pull", "pull", "Fetch models."),
    ("models", "models", "What can be fetched, and what is here."),
    ("calibrate", "calibrate", "Measure this machine for emulation."),
    ("data", "data", "Look at training data before it is used."),
    ("finetune", "finetune", "Train an adapter on a file of examples."),
    ("train", "train", "Train the tiny network from nothing."),
):
    main.add_command(_model_command(*_words))
