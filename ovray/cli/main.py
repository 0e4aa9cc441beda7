"""The command ``ovray``: hands each command to its file, and turns errors into one line and an exit code.

May not enter: what commands do.  Modules that are slow to import are imported inside the commands.
"""

import os
import select
import signal
import sys
import traceback
from contextlib import ExitStack
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from ovray.cli.bench import bench
from ovray.cli.demo import demo
from ovray.cli.devices import devices
from ovray.cli.doctor import doctor
from ovray.cli.plan import plan
from ovray.cli.pools import app as pools
from ovray.cli.score import score
from ovray.cli.simulate import simulate
from ovray.cli.stop import stop
from ovray.cli.terminal import chatter_kept_away, messages
from ovray.cli.top import top
from ovray.devices.telemetry import keep_telemetry_out
from ovray.errors import OvrayError
from ovray.logs import set_up

#: As a shell counts them: 128 and the number of the signal.
_INTERRUPTED = 128 + signal.SIGINT

_EPILOG = "--debug, anywhere on the line, shows tracebacks and all that Ray and OpenVINO print."

app = typer.Typer(
    no_args_is_help=True,
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    help="OpenVINO inference over every device of a Ray cluster.",
)
for command in (score, demo, bench, plan, simulate, devices, doctor, stop, top):
    app.command(epilog=_EPILOG)(command)
app.add_typer(pools, name="pools", epilog=_EPILOG)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"ovray {version_of('ovray')}")
        raise typer.Exit()


def main() -> None:
    """Runs the command line and ends the process: 0 done, 2 what the caller can mend, 1 what failed under way."""
    arguments = sys.argv[1:]
    is_debugging = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    keep_telemetry_out()
    with ExitStack() as stack:
        if not is_debugging:
            stack.enter_context(chatter_kept_away())
        try:
            set_up(messages.console.file)
            code = app([word for word in arguments if word != "--debug"], "ovray", standalone_mode=False)
        except Exception as error:  # noqa: BLE001 (the boundary: everything ends in one line and a code)
            if is_debugging:
                traceback.print_exc()
            code = _explain(error)
        except KeyboardInterrupt:
            code = _INTERRUPTED
        except SystemExit as ended:
            # typer ends without a word where a pipe broke, which is right for our own output only.
            if not isinstance(ended.__context__, BrokenPipeError) or _nobody_reads_on():
                raise
            code = _explain(ended.__context__)
        # typer, too, turns an interrupt into this code, and says nothing about it.
        if code == _INTERRUPTED:
            messages.say("ovray: interrupted; what was complete is kept, the rest was taken away")
    _end(code or 0)


def _end(code: int) -> NoReturn:
    session = sys.modules.get("ovray.driver.session")
    if session is not None and session.is_stuck():
        # All is said and done; the interpreter would wait for threads of Ray's that wait for a dead head.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Says what went wrong; returns the exit code."""
    if isinstance(error, OvrayError):
        messages.say(f"ovray: {error}")
        return error.exit_code
    if isinstance(error, typer.TyperException):
        what = getattr(error, "format_message", error.__str__)()
        messages.say(f"ovray: {what} `ovray COMMAND --help` shows what a command takes.")
        return 2
    if isinstance(error, typer.Abort) and isinstance(error.__cause__, EOFError):
        error = error.__cause__  # typer takes every one for the end of an input that it asked for; it asks nothing
    messages.say(
        f"ovray: {type(error).__name__}: {' '.join(str(error).split())[:500]}; this should not happen: please"
        " report it; --debug shows where"
    )
    return 1


def _nobody_reads_on() -> bool:
    """Says whether whoever read our output has gone, as ``head`` goes."""
    outputs = select.poll()
    for file in (1, 2):
        outputs.register(file, 0)
    return any(event & select.POLLERR for _, event in outputs.poll(0))


def _interrupt(number: int, frame: FrameType | None) -> Any:
    """Does what Ctrl-C would do at this moment when the job system stops us: a job completes what it holds.

    Calls the handler and does not send the signal: Ray blocks SIGINT in the drivers of its jobs.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


if __name__ == "__main__":
    main()
