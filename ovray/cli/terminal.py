"""Keeps the terminal clean: what Ray, OpenVINO and protobuf print on standard error stays away from it.

Native code writes to the descriptor, so it is the descriptor that is turned away while a command runs; ovray's own
messages go to the one that was there before.  May not enter: what is said.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_STANDARD_ERROR = 2

#: Columns of what no terminal shows: wide enough that no message is folded.
_UNFOLDED_COLUMNS = 10_000


class _Messages:
    """Is standard error as the caller gave it, for ovray's own words."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    def keep(self) -> None:
        """Holds on to standard error as it is now, before it is turned away."""
        file = os.fdopen(os.dup(_STANDARD_ERROR), "w", encoding="utf-8", errors="replace", buffering=1)
        self.console = Console(file=file, width=None if file.isatty() else _UNFOLDED_COLUMNS)

    def say(self, text: str) -> None:
        """Writes a message, as it is."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


messages = _Messages()


@contextmanager
def chatter_kept_away() -> Iterator[None]:
    """Turns standard error away while the block runs; ``messages`` still reach it."""
    messages.keep()
    before = os.dup(_STANDARD_ERROR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    os.dup2(nowhere, _STANDARD_ERROR)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, _STANDARD_ERROR)
        os.close(before)
        os.close(nowhere)
