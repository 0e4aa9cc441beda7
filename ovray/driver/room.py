"""Bounds what a pool holds for its callers: requests that have not ended, and the bytes of their inputs.

May not enter: what a request is.
"""

import threading
import time
from collections.abc import Callable

#: How often one who waits for room looks whether the pool still lives.
_LOOK_S = 0.25


class Room:
    """Lets requests in while there is place.  Safe to use from many threads."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        """Is empty.

        Args:
            max_requests: requests that may be in at once.
            max_bytes: bytes that they may hold together; one alone may hold more.
        """
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        # The bare lock for what is done at every request: a Condition's own way in costs twice as much.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._requests = 0
        self._bytes = 0
        self._waiting = 0
        #: Requests that were in and are not any more, and that were turned away, since the beginning.
        self._left = 0
        self.rejected = 0

    @property
    def accepted(self) -> int:
        """Counts the requests that were let in since the beginning."""
        with self._lock:
            return self._left + self._requests

    def enter(self, size_bytes: int, timeout_s: float | None, check_open: Callable[[], None]) -> bool:
        """Waits for place and takes it; says whether there was any in time.

        Args:
            size_bytes: what the request holds.
            timeout_s: ``None`` waits for as long as ``check_open`` lets it.
            check_open: is called while it waits; raises where waiting makes no sense any more.
        """
        with self._lock:
            if self._has_place(size_bytes):
                self._take(size_bytes)
                return True
            end_s = None if timeout_s is None else time.monotonic() + timeout_s
            self._waiting += 1
            try:
                while not self._has_place(size_bytes):
                    left_s = _LOOK_S if end_s is None else min(_LOOK_S, end_s - time.monotonic())
                    if left_s <= 0:
                        self.rejected += 1
                        return False
                    check_open()
                    self._changed.wait(left_s)
                self._take(size_bytes)
                return True
            finally:
                self._waiting -= 1

    def leave(self, size_bytes: int, count: int = 1) -> None:
        """Gives back the place of one request, or of several that held so many bytes together."""
        with self._lock:
            self._requests -= count
            self._left += count
            self._bytes -= size_bytes
            if self._waiting:
                self._changed.notify_all()

    @property
    def occupants(self) -> int:
        """Counts the requests that are in."""
        return self._requests

    def wait_empty(self, timeout_s: float) -> bool:
        """Waits until nothing is in; says whether that was so in time."""
        with self._changed:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._requests == 0, timeout_s)
            finally:
                self._waiting -= 1

    def _has_place(self, size_bytes: int) -> bool:
        if self._requests == 0:
            return True
        return self._requests < self.max_requests and self._bytes + size_bytes <= self.max_bytes

    def _take(self, size_bytes: int) -> None:
        self._requests += 1
        self._bytes += size_bytes
