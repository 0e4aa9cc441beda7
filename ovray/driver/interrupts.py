"""Lets a loop on the main thread end well at the first Ctrl-C, and at once at the second.

May not enter: what ending well means (job.py).
"""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Notes the first SIGINT while the block runs; a second one raises ``KeyboardInterrupt`` as usual.

    Does nothing on other threads than the main one, which Python does not tell of signals.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: Any = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
