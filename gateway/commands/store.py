"""`glassgate store`: the store on its way into a file and back.

SQLite copies itself page by page, PostgreSQL by its own pg_dump and pg_restore, both as of one
moment and while gateways write. What a gateway has not moved out of its journal yet is not in the
store, hence not in the copy: the journal stays where it is and is replayed over what was restored.
"""

# ruff: noqa: S603 - the programs are PostgreSQL's own, with words of ours

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands import CONFIG, require_store

if TYPE_CHECKING:
    import sqlalchemy as sa

    from gateway.config import Store

DUMP = ("pg_dump", "--format=custom", "--no-owner", "--no-privileges")
BUSY_S = 5.0  # how long a restore waits for whoever has the store open
RESTORE = ("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction")


@click.group()
def store() -> None:
    """Back the store up, and restore it."""


@store.command()
@click.argument("target", type=click.Path(path_type=Path))
@CONFIG
def backup(target: Path, config: Path | None) -> None:
    """Write the store to TARGET, a new file, while gateways go on."""
    settings = _settings(config)
    require_store(settings.url)
    url = _url(settings)
    if target.exists():
        raise click.ClickException(f"{target} is there already")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if url.get_backend_name() == "sqlite":
            _check(Path(url.database or ""))
            _copy(Path(url.database or ""), partial)
            _check(partial)
        else:
            _run((*DUMP, f"--file={partial}"), url)
        partial.replace(target)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"{target}: {target.stat().st_size:,} bytes")


@store.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="What the store holds now may be lost.")
@CONFIG
def restore(source: Path, replace: bool, config: Path | None) -> None:
    """Make the store what it was when the backup SOURCE was made. Gateways must be stopped."""
    settings = _settings(config)
    url = _url(settings)
    if _is_in_use(Path(settings.journal)):
        raise click.ClickException(f"a gateway runs with {settings.journal}: stop it first")
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "").absolute()
        if path.exists() and path.samefile(source):
            raise click.ClickException(f"{source} is the store itself")
        if path.exists() and not replace:
            raise click.ClickException(f"{path} is there: --replace gives up what it holds")
        _check(source)
        _copy(source, path)
        where = str(path)
    else:  # where tables are in the way, pg_restore refuses by itself and changes nothing
        clean = ("--clean", "--if-exists") if replace else ()
        _run((*RESTORE, *clean, str(source)), url)
        where = url.render_as_string()
    click.echo(f"restored {where}; a gateway brings it up to its own version when it starts")


def _settings(config: Path | None) -> "Store":
    from gateway.config_file import ConfigError, load

    try:
        return load(config).config.store
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def _url(settings: "Store") -> "sa.URL":
    from gateway.errors import Unavailable
    from gateway.store.engine import make_engine

    try:
        return make_engine(settings.url).url
    except Unavailable as error:
        raise click.ClickException(str(error)) from error


def _copy(source: Path, target: Path) -> None:
    """All pages in one step, so that they are of one moment; who has the source open goes on."""
    try:
        with (
            closing(sqlite3.connect(source)) as old,
            closing(sqlite3.connect(target, timeout=BUSY_S)) as new,
        ):
            _lock(new, target)
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, with no other beside it
    except sqlite3.Error as error:
        raise click.ClickException(f"{source} could not be copied to {target}: {error}") from error


def _lock(connection: sqlite3.Connection, path: Path) -> None:
    """Until it closes, nobody else reads or writes the file: its pages will be other ones."""
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")  # beside a WAL, readers would go on
        connection.executescript("BEGIN EXCLUSIVE; COMMIT")
    except sqlite3.Error as error:
        text = f"{path} is as it was: {error}; stop who has it open, or move it away"
        raise click.ClickException(text) from error


def _check(path: Path) -> None:
    """Refuses what is no store of ours, or is damaged."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as it:
            (verdict,) = it.execute("PRAGMA quick_check(1)").fetchone()
            it.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise click.ClickException(f"{path} is no store: {error}") from error
    if verdict != "ok":
        raise click.ClickException(f"{path} is damaged: {verdict}")


def _is_in_use(journal: Path) -> bool:
    """Does a gateway on this machine hold a segment of the journal?"""
    from gateway.journal import SUFFIX, Segment

    for path in journal.glob(f"*{SUFFIX}"):
        segment = Segment.open(path)
        if segment is None:
            return path.exists()
        segment.close()
    return False


def _run(words: tuple[str, ...], url: "sa.URL") -> None:
    """One of PostgreSQL's programs; the password goes by the environment, where ps sees none."""
    if shutil.which(words[0]) is None:
        raise click.ClickException(f"{words[0]} is not here: install PostgreSQL's client programs")
    shown = url.set(drivername="postgresql", password=None)
    database = f"--dbname={shown.render_as_string(hide_password=False)}"
    env = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    done = subprocess.run([words[0], database, *words[1:]], env=env, check=False)
    if done.returncode:
        raise click.ClickException(f"{words[0]} left with status {done.returncode}")
