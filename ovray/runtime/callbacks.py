"""Runs callers' callbacks on threads of their own, never on the driver thread: a callback may take long, wait for
other requests, or submit some.

May not enter: what a callback is about.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

#: Threads that start as soon as all others are busy.  More would only fight over Python's lock.
EAGER_THREADS = 4

#: When all threads are busy, and none has taken a new callback for this long, one more starts: they may be waiting
#: for just that callback.
STALLED_S = 0.02

#: A thread without work ends after this time.
IDLE_S = 10.0


class CallbackThreads:
    """Is a set of threads that grows while all of them wait, and shrinks again.

    It holds at most a thread for each callback that has not returned, and those are bounded by the requests in
    flight.  The threads are daemons: callbacks do not hold up the end of the interpreter.
    """

    def __init__(self, name: str) -> None:
        """Starts nothing.

        Args:
            name: what the threads are called.
        """
        self._name = name
        self._changed = threading.Condition()
        self._calls: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0
        #: How many calls were taken so far.
        self._taken = 0
        self._relief_stands_by = False

    def run(self, call: Callable[[], None]) -> None:
        """Has a call made soon; returns at once.  The call must not raise."""
        with self._changed:
            self._calls.append(call)
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._threads < EAGER_THREADS:
                self._start(self._serve)
            else:
                self._call_relief()

    def _start(self, target: Callable[[], None]) -> None:
        self._threads += 1
        threading.Thread(target=target, name=self._name, daemon=True).start()

    def _call_relief(self) -> None:
        if not self._relief_stands_by:
            self._relief_stands_by = True
            self._start(self._stand_by)

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            call()
            # Holds on to nothing of the caller's while it waits.
            del call

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._calls, IDLE_S)
            self._idle -= 1
            if not self._calls:
                self._threads -= 1
                return None
            self._taken += 1
            call = self._calls.popleft()
            if len(self._calls) > self._idle and self._threads >= EAGER_THREADS:
                self._call_relief()
            return call

    def _stand_by(self) -> None:
        """Waits until the others get stuck, then becomes one of them; or until there is nothing left to do."""
        while True:
            with self._changed:
                taken_before = self._taken
            time.sleep(STALLED_S)
            with self._changed:
                if not self._calls:
                    self._relief_stands_by = False
                    self._threads -= 1
                    return
                if self._taken == taken_before:
                    self._relief_stands_by = False
                    break
        self._serve()
