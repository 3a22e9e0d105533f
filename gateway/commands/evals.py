"""`glassgate eval`: run an eval against a gateway, and say what came of it."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import CONFIG, open_store, opened, showing

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.evals.client import PriceOf
    from gateway.evals.definition import AnyGrader, Eval
    from gateway.evals.runs import Run
    from gateway.evals.scores import Column
    from gateway.store import Store

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("eval")
def evals() -> None:
    """Judge releases, prompts and models. RUN is an id that `run` printed."""


@evals.command("run")
@click.argument("file", type=FILE)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The gateway.")
@click.option("--key", envvar="GLASSGATE_KEY", default="", help="Your key; it must be able to pin.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True)
@click.option("--new", "is_new", is_flag=True, help="Do not go on with a run that was broken off.")
@CONFIG
def run(file: Path, config: Path | None, **how: Any) -> None:
    """Put every case of FILE to every target; go on where a killed run ended."""
    from gateway.config_file import ConfigError, load
    from gateway.errors import GatewayError
    from gateway.evals.client import Unanswered
    from gateway.evals.definition import load as load_eval

    try:
        it, settings = load_eval(file), load(config).config
        store = open_store(settings.store.url)
        try:
            asyncio.run(_run(store, it, prices_of(settings), **how))
        finally:
            store.close()
    except (ConfigError, GatewayError, Unanswered) as error:
        raise click.ClickException(str(error)) from error


async def _run(
    store: "Store", it: "Eval", price_of: "PriceOf", *, url: str, key: str, concurrency: int,
    is_new: bool,
) -> None:  # fmt: skip
    import aiohttp

    from gateway.evals import run as runner
    from gateway.evals.client import Client
    from gateway.evals.runs import Item

    errors = Counter[str]()
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        client = Client(session, url, key, price_of)
        found = await runner.prepare(store, client, it, is_new)
        click.echo(f"run {found.id}", err=True)
        left = len(await runner.places_left(store, found))
        with click.progressbar(length=left, label=it.name, file=sys.stderr) as bar:

            def done(item: Item) -> None:
                errors.update([item.error] if item.error else ())
                bar.update(1)

            num_errors = await runner.carry_out(store, client, found, concurrency, done)
    click.echo(found.id)
    if num_errors:
        reasons = "".join(f"\n  {count} × {error}" for error, count in errors.most_common(5))
        text = f"{num_errors} without an answer; run it again to ask them anew:{reasons}"
        raise click.ClickException(text)


def prices_of(config: "Config") -> "PriceOf":
    """What the config says that a release costs today."""
    import datetime

    from gateway import money

    today = datetime.datetime.now(datetime.UTC).date()

    def price_of(release: str, prompt: int, cached: int, completion: int) -> int:
        known = config.releases.get(release)
        prices = config.upstreams[known.upstream].prices if known else ()
        return money.cost(money.price_on(today, prices), prompt, cached, completion)

    return price_of


@showing(evals, "list")
def list_evals(connection: Any, config: Any) -> Sequence[dict[str, Any]]:
    """All runs, the youngest first."""
    from gateway.evals.runs import list_runs
    from gateway.store.shown import moment

    return [
        {**it, "created_at": moment(it["created_at"]), "finished_at": moment(it["finished_at"])}
        for it in list_runs(connection)
    ]


@showing(evals, "compare", click.argument("before"), click.argument("after", required=False))
def compare_runs(
    connection: Any, config: Any, before: str, after: str | None
) -> Sequence[dict[str, Any]]:
    """Is AFTER better than BEFORE, worse, or can one not tell? Each is RUN or RUN/TARGET; one RUN
    alone means the two targets that its eval compares. Cases and graders that changed between, and
    cases without two answers, are left out."""
    from gateway.evals.compare import compare, shared
    from gateway.evals.report import HEAD, row
    from gateway.evals.runs import read_run

    names = before, after or before
    cases, graders = shared(*(read_run(connection, it.partition("/")[0]) for it in names))
    old, asked = _column(connection, names[0], "baseline", graders)
    new, other = _column(connection, names[1], "candidate", graders)
    answered = [it for it in cases if it.id in old.total and it.id in new.total]
    if not answered:
        raise click.ClickException("there is no case that both answered and that is graded alike")
    for what, there, kept in (
        ("cases", {it.id for it in (*asked.eval.cases, *other.eval.cases)}, answered),
        ("graders", asked.eval.graders.keys() | other.eval.graders.keys(), graders),
    ):
        if left_out := len(there) - len(kept):
            click.echo(f"{left_out} of {len(there)} {what} left out", err=True)
    verdicts = compare(old, new, answered, asked.eval.comparison)
    return [dict(zip(HEAD, row(it), strict=True)) for it in verdicts]


def _column(
    connection: Any, name: str, role: str, graders: "dict[str, AnyGrader]"
) -> "tuple[Column, Run]":
    """What a RUN/TARGET means, by these graders; without a target the only one, or the
    comparison's."""
    from gateway.evals.runs import read_items, read_run
    from gateway.evals.scores import columns

    run, _, target = name.partition("/")
    found = read_run(connection, run)
    kept = columns(found, read_items(connection, run), graders)
    target = target or getattr(found.eval.comparison, role)
    if not target and len(kept) == 1:
        target = next(iter(kept))
    if target not in kept:
        raise click.ClickException(f"say which target: {', '.join(f'{run}/{it}' for it in kept)}")
    return kept[target], found


@showing(evals, "spread", click.argument("name", metavar="RUN"))
def show_spread(connection: Any, config: Any, name: str) -> Sequence[dict[str, Any]]:
    """How much the formats of a task matter, and what the best of them is worth on other cases."""
    from gateway.evals.compare import spreads
    from gateway.evals.formats import variants
    from gateway.evals.runs import read_items, read_run

    run = read_run(connection, name)
    found = spreads(run, read_items(connection, name))
    made = variants(run.eval.formats) if run.eval.formats else []
    return [
        {
            "target": target, "formats": len(made),
            "worst": f"{min(it.means):.3f}", "best": f"{max(it.means):.3f}",
            "winner": " ".join(map(repr, made[it.winner])), "where it won": f"{it.selected:.3f}",
            "elsewhere": f"{it.confirmed.mean:.3f} [{it.confirmed.low:.3f}, "
            f"{it.confirmed.high:.3f}]",
        }
        for target, it in found.items()
    ]  # fmt: skip


@evals.command("report")
@click.argument("name", metavar="RUN")
@click.option("--out", type=click.Path(path_type=Path), help="Where to. [default: RUN.html]")
@CONFIG
def report(name: str, out: Path | None, config: Path | None) -> None:
    """Write RUN as one HTML page."""
    from gateway.evals.report import page
    from gateway.evals.runs import read_items, read_run

    with opened(config, write=False) as (connection, _):
        text = page(read_run(connection, name), read_items(connection, name))
    out = out or Path(f"{name}.html")
    out.write_text(text, encoding="utf-8")
    click.echo(str(out))
