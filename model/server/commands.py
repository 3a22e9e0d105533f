"""The commands `serve` and `calibrate`: options, and nothing heavy until they are known."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
POSITIVE = click.IntRange(1)
ENGINE_OPTIONS = {  # fields of EngineConfig, which knows the defaults
    "num_blocks": "Blocks of the KV cache.",
    "block_size": "Tokens of a block.",
    "max_num_seqs": "Sequences computed at the same time.",
    "max_num_batched_tokens": "Tokens of one step.",
    "prefill_chunk": "Tokens of one prompt in one step while others run.",
    "max_num_queued_reqs": "Requests that may wait; more are refused with 503.",
    "max_num_queued_tokens": "Tokens of their prompts.",
    "num_draft_tokens": "Tokens guessed by prompt lookup and checked in one step.",
}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

model_option = click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="Chat model: a name, a GGUF file or a Hugging Face folder.",
)
threads_option = click.option(
    "--threads",
    type=POSITIVE,
    envvar="GLASSGATE_THREADS",
    help="Of the arithmetic; default: one per processor.",
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option for each of ENGINE_OPTIONS."""
    for name, text in reversed(ENGINE_OPTIONS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=POSITIVE, help=text)(command)
    return command


@click.command()
@model_option
@click.option("--embedder", default="", help="Embedding model: a name or a folder.")
@click.option("--served-model-name", help="The chat model's name for clients.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="GLASSGATE_HOST",
    help="Address to listen on; nobody needs a key here.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    envvar="GLASSGATE_MODEL_PORT",
    help="0: any free one.",
)
@threads_option
@click.option("--parent-pipe", is_flag=True, help="Leave when standard input ends.")
@click.option(
    "--drain-seconds",
    type=POSITIVE,
    default=30,
    show_default=True,
    help="What answers under way get at SIGTERM.",
)
@click.option("--strict", is_flag=True, help="Refuse request fields that nobody knows.")
@click.option(
    "--runner",
    type=click.Choice(["network", "emulated"]),
    default="network",
    show_default=True,
    help="What computes: the model, or the time that another machine would take.",
)
@click.option("--profile", type=FILE, help="The machine that an emulated runner stands for.")
@click.option(
    "--answers",
    default="echo",
    show_default=True,
    help="What an emulated runner says: echo, random, or a JSONL file of texts.",
)
@click.option("--max-model-len", type=POSITIVE, help="Tokens of a prompt with its answer.")
@click.option("--prefix-caching/--no-prefix-caching", default=None, help="Reuse known prefixes.")
@click.option("--seed", type=int, help="Of requests that bring none.")
@click.option(
    "--batch-invariant",
    is_flag=True,
    help="Serve only where an answer is the same, bit for bit, in whatever company.",
)
@click.option(
    "--lora-modules", multiple=True, metavar="NAME=PATH", help="An adapter's folder; repeatable."
)
@click.option(
    "--max-loras", type=POSITIVE, default=8, show_default=True, help="Adapters kept in memory."
)
@click.option(
    "--lora-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where an admin may load adapters from.",
)
@click.option(
    "--admin-key", envvar="GLASSGATE_MODEL_ADMIN_KEY", help="Whoever has it may load adapters."
)
@engine_options
def serve(threads: int | None, runner: str, **options: Any) -> None:
    """Serve a chat model, and perhaps an embedder, over HTTP."""
    if (runner == "emulated") != (options["profile"] is not None):
        raise click.UsageError("--runner emulated and --profile go together")
    if options["lora_root"] and not options["admin_key"]:
        raise click.UsageError("--lora-root needs --admin-key")
    modules = [words.partition("=") for words in options["lora_modules"]]
    if not all(name and path for name, _, path in modules):
        raise click.BadParameter("NAME=PATH is wanted", param_hint="--lora-modules")
    use_threads(threads)
    from model.server.adapters import LoraSettings
    from model.server.loading import Settings
    from model.server.process import Leave, listen, serve

    names = (*ENGINE_OPTIONS, "prefix_caching", "seed")
    settings = Settings(
        model=options["model"],
        embedder=options["embedder"],
        served_name=options["served_model_name"],
        max_model_len=options["max_model_len"],
        is_strict=options["strict"],
        profile=options["profile"],
        answers=options["answers"],
        batch_invariant=options["batch_invariant"],
        loras=LoraSettings(
            modules={name: Path(path) for name, _, path in modules},
            max_loras=options["max_loras"],
            root=options["lora_root"],
            admin_key=options["admin_key"] or "",
        ),
        engine={name: options[name] for name in names if options[name] is not None},
    )
    try:
        listener = listen(options["host"], options["port"])
    except OSError as error:
        message = f"{options['host']}:{options['port']}: {error.strerror}"
        raise click.ClickException(message) from None
    leave = Leave(options["drain_seconds"], options["parent_pipe"])
    sys.exit(serve(listener, settings, leave))


@click.command()
@model_option
@threads_option
@click.option("--name", help="What to call this machine; the model's name if left out.")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def calibrate(model: str, threads: int | None, name: str | None, target: Path) -> None:
    """Measure this machine and write it to TARGET as a profile to emulate."""
    use_threads(threads)
    from model.engine.calibrate import to_toml
    from model.server.loading import measure

    made = measure(model, name or model)
    target.write_text(to_toml(made.profile), encoding="utf-8")
    click.echo(f"{target}: {made.profile.source}")


def use_threads(threads: int | None) -> None:
    """Set the number of threads of numba and BLAS, who read it once, when they are imported.

    Where kernels are compiled they share the work out themselves: BLAS keeps to one thread, as its
    idle ones spin and take the processor from the others.
    """
    count = str(threads or len(os.sched_getaffinity(0)))
    os.environ["NUMBA_NUM_THREADS"] = count
    os.environ.update(dict.fromkeys(BLAS_THREADS, "1" if find_spec("numba") else count))
