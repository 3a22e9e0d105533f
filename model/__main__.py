"""`python -m model`: serve, pull, models. Loads nothing heavy before the command is known."""

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from model.weights.commands import models_command, pull_command

THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glassgate")
def main() -> None:
    """The model server: a transformer in numpy behind OpenAI's protocol."""


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option for each of ENGINE_OPTIONS."""
    for name, text in reversed(ENGINE_OPTIONS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=POSITIVE, help=text)(command)
    return command


@main.command()
@click.option(
    "--model",
    default="smollm2",
    show_default=True,
    help="Chat model: a name, a GGUF file or a Hugging Face folder.",
)
@click.option("--embedder", help="Embedding model: a name or a folder.")
@click.option("--served-model-name", help="The chat model's name for clients.")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="GLASSGATE_HOST")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    envvar="GLASSGATE_MODEL_PORT",
    help="0: any free one.",
)
@click.option(
    "--threads",
    type=POSITIVE,
    envvar="GLASSGATE_THREADS",
    help="Of the arithmetic; default: one per processor.",
)
@click.option("--parent-pipe", is_flag=True, help="Leave when standard input ends.")
@click.option(
    "--drain-seconds",
    type=POSITIVE,
    default=30,
    show_default=True,
    help="What answers under way get at SIGTERM.",
)
@click.option("--strict", is_flag=True, help="Refuse request fields that nobody knows.")
@click.option("--max-model-len", type=POSITIVE, help="Tokens of a prompt with its answer.")
@click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True)
@click.option("--seed", type=int, help="Of requests that bring none.")
@engine_options
def serve(threads: int | None, **options: Any) -> None:
    """Serve a chat model, and perhaps an embedder, over HTTP."""
    count = str(threads or len(os.sched_getaffinity(0)))
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, count))  # read once, by the first import
    from model.server.loading import Settings
    from model.server.process import Place, serve

    engine = {name: options[name] for name in (*ENGINE_OPTIONS, "prefix_caching", "seed")}
    place = Place(
        host=options["host"],
        port=options["port"],
        drain_s=options["drain_seconds"],
        parent_pipe=options["parent_pipe"],
    )
    settings = Settings(
        model=options["model"],
        embedder=options["embedder"] or None,
        served_name=options["served_model_name"],
        max_model_len=options["max_model_len"],
        is_strict=options["strict"],
        engine={name: value for name, value in engine.items() if value is not None},
    )
    try:
        sys.exit(serve(place, settings))
    except OSError as error:
        raise click.ClickException(f"{place.host}:{place.port}: {error.strerror}") from None


main.add_command(pull_command)
main.add_command(models_command)

if __name__ == "__main__":
    main(prog_name="python -m model")
