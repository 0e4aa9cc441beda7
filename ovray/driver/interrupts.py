"""Keeps Ctrl-C from falling into what must not stop half-way.

May not enter: what is kept from it.  That is a job's loop on the main thread, which ends well at the first Ctrl-C
and at once at the second (job.py), and a turn at driving a pool (turn.py).
"""

# signal.signal makes enums of what it is given and returns, at ten times the cost.
import _signal  # type: ignore[import-not-found]
import signal
import threading
from types import FrameType
from typing import Any

_SIGINT = int(signal.SIGINT)

_main_thread = threading.main_thread()

#: How long replicas may take at Ctrl-C to complete what they hold; a second Ctrl-C ends that.
DRAIN_TIMEOUT_S = 10.0


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


class HeldBack:
    """Holds a SIGINT back until the end of the block, which must be short; then it does what it does else.

    Costs nothing on other threads than the main one, and two microseconds there.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._came: FrameType | None = None

    def __enter__(self) -> None:
        # A handler that is no function of Python's raises nothing here.
        if threading.get_ident() == _main_thread.ident and callable(_signal.getsignal(_SIGINT)):
            self._before = _signal.signal(_SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            _signal.signal(_SIGINT, self._before)
            if self._came is not None:
                self._before(_SIGINT, self._came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = frame
