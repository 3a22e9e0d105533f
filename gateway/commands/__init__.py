"""The command line over the store, by subject.

Each command is one function of the store in one transaction, the same that the admin API calls; a
running gateway notices within a second. Who runs them has the store itself, hence every scope.
Databases are imported when a command runs: they take half a second.
"""

import functools
import getpass
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import sqlalchemy as sa

    from gateway.config import Config
    from gateway.store import Store
    from gateway.store.audit import By

Params = Callable[[Any], Any]

CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file that names the store."
)
FORMAT = click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table"
)


def showing(
    group: click.Group | None, name: str, *params: Params
) -> Callable[[Any], click.Command]:
    """Makes a command of a function (connection, config, …) that returns rows to be shown."""

    def make(function: Callable[..., Sequence[dict[str, Any]]]) -> click.Command:
        @functools.wraps(function)
        def run(config: Path | None, form: str, **given: Any) -> None:
            with opened(config, write=False) as (connection, settings):
                put_out(function(connection, settings, **given), form)

        return _command(group, name, (*params, FORMAT, CONFIG), run)

    return make


def changing(
    group: click.Group | None, name: str, *params: Params
) -> Callable[[Any], click.Command]:
    """Makes a command of a function (connection, config, …); what it returns is printed."""

    def make(function: Callable[..., str | None]) -> click.Command:
        @functools.wraps(function)
        def run(config: Path | None, **given: Any) -> None:
            with opened(config, write=True) as (connection, settings):
                done = function(connection, settings, **given)
            if done is not None:
                click.echo(done)

        return _command(group, name, (*params, CONFIG), run)

    return make


def _command(
    group: click.Group | None, name: str, params: Sequence[Params], run: Callable[..., None]
) -> click.Command:
    for param in reversed(params):
        run = param(run)
    return (group.command(name) if group else click.command(name))(run)


@contextmanager
def opened(path: Path | None, write: bool) -> Iterator[tuple["sa.Connection", "Config"]]:
    """A transaction on the store that the config names; a failure is one line and exit code 1."""
    from gateway.config_file import ConfigError, load
    from gateway.errors import GatewayError
    from gateway.store.seeds import plant_traffic

    try:
        config = load(path).config
        if not write:
            require_store(config.store.url)
        store = open_store(config.store.url)
        try:
            with store.begin(write=write) as connection:
                if write:
                    plant_traffic(connection, config)
                yield connection, config
        finally:
            store.close()
    except (ConfigError, GatewayError) as error:
        raise click.ClickException(str(error)) from error


def open_store(url: str) -> "Store":
    """Says so when it makes one, as nobody may know of it. Raises Unavailable."""
    from gateway.store import Store

    new = absent_file(url)
    store = Store.open(url)
    if new is not None:
        click.echo(f"there was no store: made {new}", err=True)
    return store


def require_store(url: str) -> None:
    """Where there is none yet, a command that only reads is in the wrong place."""
    if (path := absent_file(url)) is not None:
        text = "run this where the gateway runs, or name its --config"
        raise click.ClickException(f"there is no store at {path}: {text}")


def absent_file(url: str) -> Path | None:
    """The file of a store on SQLite that nobody has made yet."""
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    return path.absolute() if url.startswith("sqlite:///") and not path.exists() else None


def by_me(why: str = "") -> "By":
    from gateway.store.audit import By

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # in a container a user often has no name
        name = str(os.getuid())
    return By(f"cli:{name}", why)


def put_out(rows: Sequence[dict[str, Any]], form: str) -> None:
    """The same rows as a table for people, or as CSV or JSON."""
    import msgspec

    from gateway.store.shown import as_csv, cell

    if form == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows)))
    elif form == "csv":
        click.echo(as_csv(rows), nl=False)
    elif rows:
        table = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
