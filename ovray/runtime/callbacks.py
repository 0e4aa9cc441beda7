"""Runs callers' callbacks on threads of their own, never on the driver thread: a callback may take long, wait for
other requests, or submit some.

May not enter: what a callback is about.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

#: Threads that start as soon as those that are there do not get on.  More would only fight over Python's lock.
EAGER_THREADS = 4

#: When all threads are busy, and none has taken a new callback for this long, one more starts: they may be waiting
#: for just that callback.
STALLED_S = 0.02

#: A call that runs for longer than this when others come is none that they should wait for; a quick one may, while
#: another thread has Python's lock for its 5 ms.
LONG_S = 0.01

#: A thread without work ends after this time; at once, where there are more than the eager ones and another waits.
IDLE_S = 10.0


class CallbackThreads:
    """Is a set of threads that grows while all of them wait, and shrinks again.

    One thread makes the calls as long as it gets on: two that take turns cost more, in switches, than quick
    callbacks take.  When calls come while it is at one that takes its time, another helps.

    It holds at most a thread for each callback that has not returned, and those are bounded by the requests in
    flight.  The threads are daemons: callbacks do not hold up the end of the interpreter.
    """

    def __init__(self, name: str) -> None:
        """Starts nothing.

        Args:
            name: what the threads are called.
        """
        self._name = name
        #: Taken out of without a lock, one by one, so that a call that takes long holds up no other.
        self._calls: deque[tuple[Callable[[Any], None], Any]] = deque()
        #: When the last one was taken.
        self._taken_s = 0.0
        #: Guards all that follows.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        #: Threads that make calls or wait for them, and of these those that wait.
        self._threads = 0
        self._idle = 0
        self._relief_stands_by = False
        #: A relief that was not needed, and may be the next one.
        self._relief_rests = False
        self._relief_wanted = threading.Condition(lock)

    def run(self, call: Callable[[], None]) -> None:
        """Has a call made soon; returns at once.  The call must not raise."""
        self.run_each(_make, (call,))

    def run_each(self, call: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Has a call made soon with each of these, in whatever order they end; the call must not raise."""
        self._calls.extend(zip(repeat(call), items))
        with self._changed:
            is_busy = self._threads > self._idle
            if is_busy and time.monotonic() - self._taken_s < LONG_S:
                self._call_relief()
            elif self._idle:
                self._changed.notify()
            elif self._threads < EAGER_THREADS:
                self._threads += 1
                self._start(self._serve)
            else:
                self._call_relief()

    def _start(self, target: Callable[[], None]) -> None:
        threading.Thread(target=target, name=self._name, daemon=True).start()

    def _call_relief(self) -> None:
        if self._relief_stands_by:
            return
        self._relief_stands_by = True
        if self._relief_rests:
            self._relief_wanted.notify()
        else:
            self._start(self._stand_by)

    def _serve(self) -> None:
        while self._wait():
            self._work_off()

    def _work_off(self) -> None:
        calls = self._calls
        while True:
            try:
                call, item = calls.popleft()
            except IndexError:
                return
            self._taken_s = time.monotonic()
            call(item)
            # Holds on to nothing of the caller's while it waits.
            del call, item

    def _wait(self) -> bool:
        """Returns when there are calls; says whether there are."""
        with self._changed:
            # Those that wait take turns, so that under load none of them is idle for long.
            if not self._calls and self._idle and self._threads > EAGER_THREADS:
                self._threads -= 1
                return False
            self._idle += 1
            self._changed.wait_for(lambda: self._calls, IDLE_S)
            self._idle -= 1
            if self._calls:
                if len(self._calls) > 1:
                    self._call_relief()
                return True
            self._threads -= 1
            return False

    def _stand_by(self) -> None:
        """Waits until the others get stuck, then becomes one of them; rests while there is nothing left to do."""
        while True:
            time.sleep(STALLED_S)
            with self._changed:
                if not self._calls:
                    if not self._rest():
                        return
                elif time.monotonic() - self._taken_s >= STALLED_S:
                    self._relief_stands_by = False
                    self._threads += 1
                    break
        self._serve()

    def _rest(self) -> bool:
        """Waits to be called again; says whether that came, before it was time to end."""
        self._relief_stands_by, self._relief_rests = False, True
        is_wanted = self._relief_wanted.wait_for(lambda: self._relief_stands_by, IDLE_S)
        self._relief_rests = False
        return is_wanted


def _make(call: Callable[[], None]) -> None:
    call()
