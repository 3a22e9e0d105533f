"""`glassgate ingest`: a file, a folder or Python's own topics into a vector store."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands import CONFIG, open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.config_file import Loaded
    from gateway.retrieval.index import Searcher
    from gateway.retrieval.ingest import Summary
    from gateway.setup import Setup
    from gateway.upstream import Client

PROBE_S = 1.0


@click.command()
@click.argument("path")
@click.option("--store", "name", required=True, help="A vector store's name; made if it is new.")
@click.option("--team", default="", help="Whose store. [default: the gateway's own]")
@CONFIG
def ingest(path: str, name: str, team: str, config: Path | None) -> None:
    """Text, Markdown, HTML or Python source at PATH, or pydoc:topics, as one new snapshot.

    What did not change since the last time is left as it is; what went away leaves the snapshot.
    """
    from gateway.config_file import ConfigError, load
    from gateway.errors import GatewayError
    from gateway.local import LocalError
    from gateway.retrieval.embedder import EmbedderSilent

    try:
        done = asyncio.run(_ingest(load(config), path, name, f"team:{team}" if team else ""))
    except (ConfigError, GatewayError, LocalError) as error:
        raise click.ClickException(str(error)) from error
    except EmbedderSilent as error:
        raise click.ClickException(f"the embedder does not answer: {error}") from error
    for line in done.skipped:
        click.echo(f"skipped: {line}", err=True)
    click.echo(
        f"{name}@{done.snapshot}: {done.added} documents new or changed ({done.passages} passages),"
        f" {done.unchanged} unchanged, {done.removed} gone"
    )


async def _ingest(loaded: "Loaded", path: str, name: str, tenant: str) -> "Summary":
    from gateway.retrieval.ingest import Run

    async with _searching(loaded) as searcher:
        with click.progressbar(length=1, label=f"reading {path}", show_pos=True) as bar:

            def say(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            return await Run(searcher, tenant, path, say).ingest(name)


@asynccontextmanager
async def _searching(loaded: "Loaded") -> "AsyncIterator[Searcher]":
    """The store, and the embedder that the config names; ours is started if nobody runs it."""
    from gateway.metrics import Metrics
    from gateway.retrieval.embedder import make_embedder
    from gateway.retrieval.index import Searcher
    from gateway.routing.balance import Pool
    from gateway.setup import make_setup
    from gateway.upstream import Client

    setup, client = make_setup(loaded), Client()
    pool, store = Pool(client), open_store(loaded.config.store.url)
    try:
        searcher = Searcher(store, Metrics())
        searcher.embedder = make_embedder(setup, pool)
        async with _model_server(setup, client):
            yield searcher
    finally:
        await pool.close()
        await client.close()
        store.close()


@asynccontextmanager
async def _model_server(setup: "Setup", client: "Client") -> "AsyncIterator[None]":
    """A child, unless somebody else embeds or it runs already."""
    from gateway.local import LocalModel
    from gateway.retrieval.embedder import embedding_release

    config = setup.config
    if config.retrieval.embedder and config.local is not None:
        name = config.releases[embedding_release(config)].upstream
        target = setup.targets[name]
        is_ours = bool(config.upstreams[name].local)
        if is_ours and not await client.is_alive(target, target.base_urls[0], PROBE_S):
            async with LocalModel(config.local) as local:
                await local.until_ready()
                yield
            return
    yield
