"""Listens for single keys on a terminal, and gives it back as it was.

May not enter: what keys mean.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager


class Keys:
    """Waits for keys; without a terminal to type on, only for time to pass."""

    def __init__(self, file: int | None) -> None:
        self._file = file

    def wait(self, timeout_s: float, wanted: str) -> bool:
        """Waits until one of the ``wanted`` keys is pressed, or the time is over; says whether one was."""
        end_s = time.monotonic() + timeout_s
        while (left_s := end_s - time.monotonic()) > 0:
            if self._file is None:
                time.sleep(left_s)
                continue
            readable, _, _ = select.select([self._file], [], [], left_s)
            if not readable:
                return False
            typed = os.read(self._file, 64).decode(errors="replace")
            if not typed:
                self._file = None  # the terminal is gone, or was never typed on
            elif any(key in wanted for key in typed):
                return True
        return False


@contextmanager
def keys() -> Iterator[Keys]:
    """Has keys come one by one, and unseen, while the block runs."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    tty.setcbreak(file)
    try:
        yield Keys(file)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
