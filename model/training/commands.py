"""The commands `finetune`, `train` and `data`: options, and nothing heavy until they are known."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from model.training.audit import Report
    from model.training.loop import Progress
    from model.training.rows import Row

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Positive(click.FloatRange):
    """A finite number above zero."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value} is no number", param, ctx)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

threads_option = click.option(
    "--threads", type=click.IntRange(1), envvar="GLASSGATE_THREADS",
    help="Of the arithmetic. [default: one per processor; 1 for tiny, which is faster so]",
)  # fmt: skip


NUMBERS: dict[str, tuple[float, str]] = {  # options of finetune: default, meaning
    "epochs": (3.0, "How often every row is seen."),
    "batch_size": (8, "Rows of a step."),
    "rank": (8, "Of the adapter."),
    "alpha": (16.0, "Its change counts alpha / rank."),
    "beta": (0.1, "Of DPO: how dear leaving the base is."),
    "max_tokens": (512, "Longer rows are listed and left out."),
    "pack_tokens": (1024, "Computed at once; more takes more memory."),
    "seed": (0, "Of the order and the first weights."),
    "save_every": (10, "Steps between checkpoints."),
}


def number_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, (default, text) in reversed(NUMBERS.items()):
        is_whole = isinstance(default, int)
        kind = click.IntRange(int(name != "seed")) if is_whole else Positive()
        option = click.option(
            f"--{name.replace('_', '-')}", type=kind, default=default, show_default=True, help=text
        )
        command = option(command)
    return command


@click.command("finetune")
@click.argument("file", type=FILE)
@click.option("--method", type=click.Choice(["sft", "dpo"]), default="sft", show_default=True)
@click.option("--model", default="smollm2", show_default=True, help="What the adapter changes.")
@click.option("--out", "folder", type=FOLDER, help="[default: var/adapters/FILE-METHOD]")
@click.option("--start", type=FOLDER, help="An adapter to go on from, as DPO does from an SFT's.")
@click.option("--test", type=FILE, help="Rows whose perplexity is told before and after.")
@click.option("--learning-rate", type=Positive(), help="[default: sft 2e-4, dpo 5e-5]")
@click.option("--recompute", is_flag=True, help="Less memory, a third more arithmetic.")
@number_options
@threads_option
def finetune_command(threads: int | None, folder: Path | None, **options: Any) -> None:
    """Train an adapter on FILE (chat or preference JSONL, ShareGPT, Alpaca).

    The same command goes on where it was stopped. The folder that comes out is PEFT's: serve it
    with `--lora-modules NAME=FOLDER`.
    """
    source = click.get_current_context().get_parameter_source("beta")
    if options["method"] == "sft" and source is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--beta is of --method dpo")
    _use_threads(threads)
    from model.training.finetune import Finetuning, Settings, release_lines
    from model.training.loop import Diverged
    from model.weights.errors import WeightsError

    file, method = options["file"], options["method"]
    folder = folder or Path("var") / "adapters" / f"{file.stem}-{method}"
    settings = Settings(folder=folder, **options)
    try:
        tuning = Finetuning(settings)
        for path, problems in tuning.problems.items():
            for problem in problems:
                text = f"left out of {path}: line {problem.line}: {problem.reason}"
                click.echo(text, err=True)
        _train(tuning, f"{method} on {tuning.num_examples} rows")
    except (WeightsError, ValueError, OSError, Diverged) as error:
        raise click.ClickException(str(error)) from error
    if measured := tuning.perplexities():
        click.echo("perplexity of the test: {:.3f} before, {:.3f} after".format(*measured))
    click.echo(
        f"{folder} is an adapter of {settings.model}. To offer it, add this to the config:\n"
    )
    click.echo("\n".join(release_lines(settings)))


@click.command("train")
@click.argument("what", type=click.Choice(["tiny"]))
@click.option("--out", "folder", type=FOLDER, default="var/tiny", show_default=True)
@threads_option
def train_command(what: str, folder: Path, threads: int | None) -> None:
    """Train the tiny network from nothing, by the recipe in ops/tiny."""
    _use_threads(threads or 1)
    from model.training.loop import OtherRun
    from model.training.tiny import Recipe, TinyRun

    started = time.monotonic()
    try:
        tiny = TinyRun(Recipe.read(), folder)
    except OtherRun as error:
        raise click.ClickException(str(error)) from error
    _train(tiny, what)
    tiny.save()
    told = {"perplexity": tiny.perplexity(), "of answers": tiny.perplexity(0.0), **tiny.scores()}
    click.echo(json.dumps({name: round(value, 3) for name, value in told.items()}, indent=2))
    click.echo(f"{folder}, in {(time.monotonic() - started) / 60:.1f} minutes")


def _train(work: Any, label: str) -> None:
    """With a bar of loss, speed and time left. Ctrl-C leaves the last whole checkpoint."""
    run, said, steps = work.run, "", list["Progress"]()
    label += f", from step {run.step}" if run.step else ""
    left = run.num_steps - run.step  # a bar that began in its middle would promise an early end
    bar: Any = click.progressbar(
        length=left, label=label, show_pos=True, item_show_func=lambda _: said
    )
    with bar:

        def report(progress: "Progress") -> None:
            nonlocal said
            speed = progress.num_tokens / progress.seconds
            said = f"loss {progress.loss:.3f}  {speed:.0f} tok/s"
            steps.append(progress)
            bar.update(1)

        try:
            work.train(report)
        except KeyboardInterrupt:
            kept = f"the same command goes on after step {run.kept}, the last that was kept"
            raise click.ClickException(f"stopped in step {run.step + 1}: {kept}") from None
    if steps:
        speed = sum(it.num_tokens for it in steps) / sum(it.seconds for it in steps)
        click.echo(f"loss {steps[0].loss:.3f} → {steps[-1].loss:.3f}, {speed:.0f} tok/s")


def _use_threads(threads: int | None) -> None:
    """Before numpy is imported, which reads it once."""
    for name in BLAS_THREADS:
        if threads:
            os.environ[name] = str(threads)


@click.group("data")
def data_command() -> None:
    """Look at training data before it is used."""


@data_command.command("check")
@click.argument("file", type=FILE)
@click.option("--test", type=FILE, help="A test set, whose questions must not be in FILE.")
@click.option("--clean", type=click.Path(path_type=Path), help="Write the rows without findings.")
@click.option("--split", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="With --clean: this share into CLEAN.test.jsonl, sources whole.")  # fmt: skip
def check_command(file: Path, test: Path | None, clean: Path | None, split: float | None) -> None:
    """Roles, empty texts, repeats, leaks into a test, personal data: with line and reason.

    Leaves with status 1 if anything was found.
    """
    from model.training.audit import audit
    from model.training.rows import read_rows

    if split and not clean:
        raise click.UsageError("--split goes with --clean")
    try:
        rows, problems = read_rows(file)
        asked, unread = read_rows(test) if test else ([], [])
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from error
    report = audit(rows, problems, asked)
    click.echo(_as_text(rows, report))
    for problem in unread:
        click.echo(f"{test}: line {problem.line}: {problem.reason}", err=True)
    if clean:
        _write_clean(rows, report, clean, split)
    raise click.exceptions.Exit(1 if report.unfit_lines or unread else 0)


def _as_text(rows: "list[Row]", report: "Report") -> str:
    preferences = sum(row.rejected is not None for row in rows)
    words = sorted(len(row.text.split()) for row in rows) or [0]
    median, p95 = words[len(words) // 2], words[len(words) * 95 // 100]
    sources = ", ".join(f"{name or '-'} {number}" for name, number in report.sources.items())
    lines = [
        f"{len(rows)} rows, {preferences} of them preferences; sources: {sources}",
        f"words a row: median {median}, p95 {p95}, most {words[-1]}",
    ]
    for kind, found in report.findings.items():
        lines.append(f"{kind}: {len(found) or 'none'}")
        lines += [f"  line {problem.line}: {problem.reason}" for problem in found]
    return "\n".join(lines)


def _write_clean(rows: "list[Row]", report: "Report", path: Path, share: float | None) -> None:
    from model.training.audit import split
    from model.training.rows import as_openai

    kept = [row for row in rows if row.line not in report.unfit_lines]
    parts = {path: kept}
    if share:
        train, test = split(kept, share, seed=0)
        parts = {path: train, path.with_suffix(f".test{path.suffix}"): test}
    for name, part in parts.items():
        lines = (json.dumps(as_openai(row), ensure_ascii=False) + "\n" for row in part)
        name.write_text("".join(lines), "utf-8")
        click.echo(f"{name}: {len(part)} rows", err=True)
