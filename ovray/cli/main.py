"""The command ``ovray``: hands each command to its file, and turns errors into one line and an exit code."""

import sys

import typer

from ovray.cli.devices import devices
from ovray.cli.doctor import doctor
from ovray.cli.plan import plan
from ovray.errors import OvrayError

app = typer.Typer(no_args_is_help=True, add_completion=False)
for command in (plan, devices, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except OvrayError as error:
        print(f"ovray: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
