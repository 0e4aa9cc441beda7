"""Starts real Python processes for tests, talks to them line by line, and ends every one of them."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import DEADLINE_S


class Script:
    """Is a Python program that prints a line when it gets somewhere, and reads one to be told to go on."""

    def __init__(self, source: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", source, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def read_line(self) -> str:
        """Return the next line it prints; fails when none comes in time."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        assert ready, f"no line from process {self.pid} within {DEADLINE_S} s"
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def kill(self) -> None:
        """Send SIGKILL, and return when the process is gone."""
        self.process.kill()
        self.process.wait(DEADLINE_S)


@contextmanager
def running(source: str, *arguments: str, **environment: str) -> Iterator[Script]:
    script = Script(source, *arguments, **environment)
    try:
        yield script
    finally:
        script.kill()
        assert script.process.stdin is not None
        assert script.process.stdout is not None
        script.process.stdin.close()
        script.process.stdout.close()
