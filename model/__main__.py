"""`python -m model`: each command is imported when it is called, so that none waits for another's
libraries, and `serve` can set the number of threads before numpy reads it."""

import click


class Commands(click.Group):
    """Finds a command by importing the room that it belongs to."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["calibrate", "data", "finetune", "models", "pull", "serve", "train"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ("calibrate", "serve"):
            from model.server import commands as server

            return {"calibrate": server.calibrate, "serve": server.serve}[cmd_name]
        if cmd_name in ("models", "pull"):
            from model.weights import commands as weights

            return {"models": weights.models_command, "pull": weights.pull_command}[cmd_name]
        if cmd_name in ("data", "finetune", "train"):
            from model.training import commands as training

            return {
                "data": training.data_command,
                "finetune": training.finetune_command,
                "train": training.train_command,
            }[cmd_name]
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glassgate")
def main() -> None:
    """The model server: a transformer in numpy behind OpenAI's protocol."""


if __name__ == "__main__":
    main(prog_name="python -m model")
