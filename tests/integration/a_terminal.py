"""A real pseudo-terminal of a given size, with a command of ovray in it."""

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.waiting import DEADLINE_S

_PROGRAM = [sys.executable, "-c", "from ovray.cli.main import main; main()"]
_HOME = re.compile(r"\x1b\[[0-9;]*H")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\r")
_FULL_SCREEN_ON, _FULL_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """Is what a person sees and types."""

    def __init__(self, columns: int, lines: int, *arguments: str, **environment: str) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._slave = slave
        self.modes_before = termios.tcgetattr(slave)
        self.columns = columns
        self.raw = b""
        self.process = subprocess.Popen(
            [*_PROGRAM, *arguments],
            env={**_without_a_size(os.environ), "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # So that Ctrl-C reaches it as from a keyboard.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    @property
    def modes(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    @property
    def text(self) -> str:
        """Return all that was shown so far, without what moves the cursor and colours."""
        return _plain(self.raw)

    @property
    def full_screen_text(self) -> str:
        """Return what of ``text`` was shown on the screen that full-screen programs have to themselves."""
        _, _, on_it = self.raw.partition(_FULL_SCREEN_ON)
        return _plain(on_it.partition(_FULL_SCREEN_OFF)[0])

    def read_until(self, wanted: str) -> None:
        """Read what is shown until this is among it; fails when it does not come in time."""
        end_s = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            assert time.monotonic() < end_s, f"{wanted!r} was not shown: {self.text[-2000:]}"
            self._read()

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        """Wait for the end of the command, reading what it still shows."""
        end_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < end_s:
            self._read()
        self._read()
        return self.process.wait(1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)
        os.close(self._slave)

    def _read(self) -> None:
        readable, _, _ = select.select([self._master], [], [], 0.1)
        if readable:
            self.raw += os.read(self._master, 65536)


def _without_a_size(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what the terminal that the tests run in is like: programs believe it before they ask their own."""
    return {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}


def _plain(raw: bytes) -> str:
    return _CONTROL.sub("", _HOME.sub("\n", raw.decode(errors="replace")))


@contextmanager
def a_terminal(columns: int, lines: int, *arguments: str, **environment: str) -> Iterator[Terminal]:
    terminal = Terminal(columns, lines, *arguments, **environment)
    try:
        yield terminal
    finally:
        terminal.close()
