"""However a command ends, the command line says why."""

import errno
import subprocess
import sys

import pytest

from tests.waiting import DEADLINE_S

_RUN = """
import sys, typer
import ovray.cli.main as command_line

app = typer.Typer()

@app.command()
def break_off():
    {0}

@app.command()
def other():
    ...

command_line.app = app
sys.argv = ["ovray", "break-off"]
command_line.main()
"""


def _run(body: str, output: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _RUN.format(body)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("raise EOFError('Ran out of input')", "EOFError: Ran out of input"),
        (f"raise OSError({errno.EPIPE}, 'Broken pipe')", "BrokenPipeError: [Errno 32] Broken pipe"),
        ("raise ValueError('what?')", "ValueError: what?"),
    ],
)
def test_what_typer_would_take_for_its_own_is_said_too(body: str, what: str) -> None:
    ended = _run(body)

    assert ended.returncode == 1
    assert f"ovray: {what}; this should not happen" in ended.stderr


def test_one_whose_output_nobody_reads_ends_without_a_word() -> None:
    # As with ``ovray ... | head``: the reader has gone before all is written.
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait(DEADLINE_S)
        assert reader.stdin is not None
        ended = _run("print('x' * 100_000, flush=True)", reader.stdin.fileno())

    assert (ended.returncode, ended.stderr) == (1, "")
