"""The turn at driving a pool: one thread has it at a time, and may have it for another.

May not enter: what is driven (driving.py).
"""

import threading
from collections.abc import Callable

from ovray.driver.interrupts import HeldBack
from ovray.errors import InvariantError


class Turn:
    """Is what a thread holds that drives: the driver thread, or one that lends it a hand.

    As a context it is taken and given back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The thread that has the turn, or had it last.
        self._holder: int | None = None
        #: Why nobody can drive any more, if a lent hand was struck.
        self.error: InvariantError | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it."""
        return self._lock.locked() and self._holder == threading.get_ident()

    def lend(self, do: Callable[[], None]) -> None:
        """Does something in the driver thread's place, as soon as nobody else drives.

        What goes wrong with it, Ctrl-C included, is not the caller's, and stands in ``error``.
        """
        with HeldBack(), self:
            self._try(do)

    def lend_if_free(self, do: Callable[[], None]) -> bool:
        """Does something in the driver thread's place, unless somebody drives now; says whether it did."""
        with HeldBack():  # first, so that Ctrl-C cannot leave it taken
            if not self._lock.acquire(blocking=False):
                return False
            try:
                self._holder = threading.get_ident()
                self._try(do)
            finally:
                self._lock.release()
        return True

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 (whoever waits must hear of it, not this caller)
            self.error = InvariantError(
                f"a thread that drove the pool was stopped by {type(error).__name__}: {error}"
            )
            self.error.__cause__ = error
