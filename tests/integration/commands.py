"""Runs the ``ovray`` command as a shell or a job system does, and finds every process that it started.

A command and all that descends from it carry a mark in their environment: Ray's daemons leave the process group,
but not their environment.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from tests.waiting import DEADLINE_S, wait_until

_MARK = "OVRAY_TEST_MARK"
_PROGRAM = [sys.executable, "-c", "from ovray.cli.main import main; main()"]


class Command:
    """Is one run of ``ovray``, in a session of its own, with its output in files."""

    def __init__(self, folder: Path, *arguments: str | Path, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        # Closed when this object goes: what was printed is read when the command is long over.
        self._stdout, self._stderr = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [*_PROGRAM, *map(str, arguments)],
            env={**_plain_environment(), **environment, _MARK: self.mark},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            start_new_session=True,
        )

    @property
    def stdout(self) -> str:
        return _text_in(self._stdout)

    @property
    def stderr(self) -> str:
        return _text_in(self._stderr)

    def wait(self, timeout_s: float = 2 * DEADLINE_S) -> int:
        return self.process.wait(timeout_s)

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def json(self) -> dict[str, Any]:
        """Return the object on the last line of standard output."""
        document: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return document

    def processes(self) -> list[psutil.Process]:
        """Return what lives of this command, itself included."""
        return [process for process in psutil.process_iter() if self._is_mine(process)]

    def leaves_nothing(self) -> bool:
        """Wait until its processes have ended: 5 s after it at the most where it has a machine to itself."""
        return wait_until(lambda: not self.processes())

    def replicas(self) -> list[int]:
        """Return the processes that replicas run in."""
        return [process.pid for process in self.processes() if _title(process).startswith("ray::Replica")]

    def runs(self, program: str) -> bool:
        return any(program in _title(process) for process in self.processes())

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


@contextmanager
def started(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[Command]:
    """Start a command; whatever lives of it afterwards is killed."""
    command = Command(folder, *arguments, **environment)
    try:
        yield command
    finally:
        for process in command.processes():
            process.kill()
        command.process.wait(DEADLINE_S)


def ran(folder: Path, *arguments: str | Path, **environment: str) -> Command:
    """Run a command to its end."""
    with started(folder, *arguments, **environment) as command:
        command.wait()
    return command


def _text_in(file: IO[bytes]) -> str:
    # Where the command goes on writing is its own affair: the place is not moved.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _plain_environment() -> dict[str, str]:
    """Return the environment without a Ray that somebody else runs here; each command starts its own."""
    return {**os.environ, "RAY_ADDRESS": "local"}
