"""The command ``ovray``: hands each command to its file, and turns errors into one line and an exit code."""

import sys

import typer

from ovray.cli.plan import plan
from ovray.errors import OvrayError

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(plan)


@app.callback()
def _root() -> None:
    """OpenVINO inference over every device of a Ray cluster."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except OvrayError as error:
        print(f"ovray: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
