"""`glassgate doctor`: is here all that this config needs? One line a finding, and what to do.

It looks and changes nothing: no migration, no pull, no new folder. What it asks, it asks once and
with a deadline, as a gateway would at its start: stores, Redis, upstreams, the model command.
"""

# ruff: noqa: S603 - the only program that is started is this Python

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from gateway.commands import CONFIG, absent_file

if TYPE_CHECKING:
    import sqlalchemy as sa

    from gateway.config import Config, Local
    from gateway.setup import Setup
    from gateway.upstream import Target

WAIT_S = 3.0
MAX_SKEW_S = 1.0
FREE_BYTES = 1 << 30


class Finding(NamedTuple):
    """`bad` must be mended before a gateway starts here, `warn` should be."""

    state: Literal["ok", "warn", "bad"]
    subject: str
    text: str


ok, warn, bad = (partial(Finding, state) for state in ("ok", "warn", "bad"))


@click.command()
@CONFIG
def doctor(config: Path | None) -> None:
    """Check what the config needs, and say what to fix. Exit code 1: something must be fixed."""
    found = []
    for it in examine(config):
        click.echo(f"{it.state:<4}  {it.subject:<18} {it.text}")
        found.append(it.state)
    sys.exit("bad" in found)


def examine(path: Path | None) -> Iterator[Finding]:
    """All findings; after a config that cannot be read there are no more."""
    from gateway.config_file import ConfigError, load
    from gateway.setup import make_setup
    from gateway.store.seeds import config_keys

    try:
        loaded = load(path)
        setup = make_setup(loaded)
        config_keys(loaded.config)
    except ConfigError as error:
        yield bad("config", str(error))
        return
    config = loaded.config
    if config.families:
        yield ok("config", f"{loaded.path}: {len(config.families)} families")
    else:
        yield warn("config", f"{loaded.path}: no family, so it serves nobody: add [families.NAME]")
    yield from _files(config, loaded.path)
    yield from _ports(config)
    yield from _store(config)
    yield from _redis("redis", config.redis.url, config)
    yield from _redis("answer_cache", config.answer_cache.redis_url, config)
    if config.local is not None and not config.local.profile:
        yield from _models(config.local)
    yield from asyncio.run(_upstreams(setup))


def _files(config: "Config", path: Path) -> Iterator[Finding]:
    folders = {"journal": Path(config.store.journal)}
    if config.store.url.startswith("sqlite:///"):
        folders["store"] = Path(config.store.url.removeprefix("sqlite:///")).parent
    for subject, folder in folders.items():
        there = next(it for it in (folder.absolute(), *folder.absolute().parents) if it.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            yield bad(subject, f"{there} may not be written: chown it to this user")
        elif shutil.disk_usage(there).free < FREE_BYTES:
            yield warn(subject, f"{there} has less than 1 GiB left: make room")
    secret = [Path(it.api_key_file) for it in config.upstreams.values() if it.api_key_file]
    secret += [path] if any(it.headers for it in config.upstreams.values()) else []
    for file in secret:
        if file.stat().st_mode & 0o004:
            yield warn("secrets", f"everybody may read {file}: chmod o-r {file}")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < (needed := 2 * config.server.max_in_flight + 256):
        text = f"{files} open files do not last for server.max_in_flight: ulimit -n {needed}"
        yield warn("open files", text)


def _ports(config: "Config") -> Iterator[Finding]:
    ports = [("server.port", config.server.host, config.server.port, "/health/live")]
    if config.local is not None:
        ports.append(("local.port", "127.0.0.1", config.local.port, "/health"))
    for subject, host, port, path in ports:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, port), family=family).close()
            yield ok(subject, f"{port} is free")
        except OSError as error:
            if _answers(f"http://127.0.0.1:{port}{path}"):
                yield ok(subject, f"one of ours answers on {port} already")
            else:
                text = f"{host}:{port}: {error.strerror}: choose another, or stop who has it"
                yield bad(subject, text)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as reply:  # noqa: S310 - ours, by http
            return bool(reply.read(100) == b'{"status":"ok"}')
    except (OSError, ValueError):
        return False


def _store(config: "Config") -> Iterator[Finding]:
    import sqlalchemy as sa

    from gateway.edge import is_loopback
    from gateway.errors import Unavailable
    from gateway.store.engine import make_engine

    num_keys = len(config.keys)
    try:
        if new := absent_file(config.store.url):
            yield ok("store", f"{new} will be made at the first start")
        else:
            engine = make_engine(config.store.url)
            with engine.connect() as connection:
                num_keys += yield from _look_into(connection)
            engine.dispose()
    except (Unavailable, sa.exc.DBAPIError) as error:
        text = str(getattr(error, "orig", error)).strip().replace("\n", " ")
        yield bad("store", f"{text}: check store.url, and that the database runs")
        return
    if not num_keys and not is_loopback(config.server.host):
        text = "none, and the gateway is to listen beyond loopback: glassgate keys create NAME"
        yield bad("keys", text)


def _look_into(connection: "sa.Connection") -> Generator[Finding, None, int]:
    """Yields findings; returns the number of keys."""
    import sqlalchemy as sa

    from gateway.store.migrations import HEAD

    if connection.dialect.name == "postgresql":
        before, now = time.time(), sa.text("SELECT extract(epoch FROM clock_timestamp())")
        yield _clock("store", float(connection.scalar(now) or 0), before)
        known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"
        if not connection.scalar(sa.text(known)):
            yield warn("store", "vector stores need pgvector: install the extension")
    if not sa.inspect(connection).has_table("alembic_version"):
        yield ok("store", "empty: the tables will be made at the first start")
        return 0
    level = str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))
    if level > HEAD:
        text = f"of version {level}, newer than this Glassgate ({HEAD}): install the newer one"
        yield bad("store", text)
    elif level < HEAD:
        text = f"of version {level}, will be brought to {HEAD} at the next start: back it up first"
        yield warn("store", text)
    else:
        yield ok("store", f"{connection.dialect.name} answers, version {level}")
    return int(connection.scalar(sa.text("SELECT count(*) FROM keys")) or 0)


def _redis(section: str, url: str, config: "Config") -> Iterator[Finding]:
    if not url:
        return
    try:
        from redis import Redis, RedisError
    except ImportError:
        yield bad(section, "redis-py is absent: pip install 'glassgate[redis]'")
        return
    try:
        with Redis.from_url(url, socket_timeout=WAIT_S, socket_connect_timeout=WAIT_S) as redis:
            redis.ping()
            before = time.time()
            seconds, micros = redis.time()
            took_ms = (time.time() - before) * 1000
            yield _clock(section, seconds + micros / 1e6, before)
            policy = redis.info("memory").get("maxmemory_policy", "noeviction")
    except (RedisError, OSError, ValueError) as error:
        yield bad(section, f"{error}: check its URL, and that the server runs")
        return
    yield ok(section, f"answers in {took_ms:.1f} ms")
    if took_ms > config.redis.timeout_ms / 2:
        text = f"that is near redis.timeout_ms = {config.redis.timeout_ms:g}: raise it, or move"
        yield warn(section, text)
    if policy != "noeviction" and section == "redis":
        text = f"{policy} forgets counts of limits: CONFIG SET maxmemory-policy noeviction"
        yield warn(section, text)


def _clock(whose: str, theirs: float, before: float) -> Finding:
    """`theirs` was read between `before` and now, in Unix seconds."""
    skew = max(before - theirs, theirs - time.time(), 0.0)
    if skew > MAX_SKEW_S:
        text = f"{skew:.1f} s apart from here: run an NTP client on both machines"
        return bad(f"clock of {whose}", text)
    return ok(f"clock of {whose}", "agrees with this machine's")


def _models(local: "Local") -> Iterator[Finding]:
    """What `models --verify` says of those that this config names."""
    words = [sys.executable, "-m", "model", "models", "--verify"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    states = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    for name in filter(None, (local.model, local.embedder)):
        if "here" in states.get(name, ()) or name == "tiny-random" or Path(name).exists():
            yield ok(f"model {name}", "is here and whole")
        elif name in states:
            yield bad(f"model {name}", f"absent or damaged: glassgate pull {name}")
        else:
            yield bad(f"model {name}", "no such name, file or folder: see local")
    if "kernels" in states and "absent" in states["kernels"]:
        yield warn("kernels", "not compiled yet: the first start takes a minute longer")


async def _upstreams(setup: "Setup") -> list[Finding]:
    asked = [
        _ask(target, url)
        for name, target in setup.targets.items()
        if not setup.config.upstreams[name].local
        for url in target.base_urls
    ]
    return await asyncio.gather(*asked)


async def _ask(target: "Target", url: str) -> Finding:
    """The unpaid list of models tells whether it is there, knows our key and has the model."""
    import aiohttp

    subject = f"upstream {target.name}"
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    try:
        async with (
            aiohttp.ClientSession(headers=target.headers, timeout=timeout) as session,
            session.get(f"{url}/models", ssl=target.ssl or True) as reply,
        ):
            body = await reply.json(content_type=None) if reply.ok else {}
    except (aiohttp.ClientError, OSError, ValueError) as error:
        text = f"{url}: {str(error) or type(error).__name__}: start it, or correct base_url"
        return bad(subject, text)
    if reply.status in (401, 403):
        return bad(subject, f"{url} refuses the key: correct api_key_env or _file")
    listed = {it.get("id") for it in body.get("data", ())} if isinstance(body, dict) else set()
    if target.model in listed:
        return ok(subject, f"{url} serves {target.model}")
    return warn(subject, f"{url} answers, but does not list {target.model}")
