"""Where the driver thread waits: for notes that other threads leave, and for sockets that have something to say.

May not enter: what notes and sockets are about.  One thread takes out; any thread puts in.
"""

import contextlib
import os
import queue
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Watch(NamedTuple):
    on_readable: Callable[[], None]
    on_writable: Callable[[], None] | None


#: Files that have something to say, what it is (of epoll's words), and who watched them then.
Ready = list[tuple[int, int, _Watch | None]]


class Mailbox:
    """Is a queue whose taker also hears of readable sockets, without a thread between.

    A thread that only reads a socket and passes on costs two wake-ups a message, some 50 us where nothing else
    runs; so the taker waits for both at once.
    """

    def __init__(self) -> None:
        self._notes: deque[Any] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Not before nobody can put anything in any more: the number may be another file's by then.
        # And not when the interpreter ends, either: pools are closed after that, and use it.
        weakref.finalize(self, os.close, self._wake).atexit = False
        # Not by ``selectors``, which takes some thirty calls of Python for each message that comes.
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._watches: dict[int, _Watch] = {}
        self._poll_notes = select.poll()
        self._poll_notes.register(self._wake, select.POLLIN)
        #: Threads that sleep, or are about to: who puts something in must wake them.
        self._sleeping: set[int] = set()
        #: The thread that calls back for sockets, which looks for notes of its own itself.
        self._collector: int | None = None

    def put(self, note: Any) -> None:
        """Leaves a note."""
        self._notes.append(note)
        self.wake()

    def get(self, timeout: float) -> Any:
        """Waits for a note and takes it.

        Raises:
            queue.Empty: none came within ``timeout`` seconds.
        """
        end_s = time.monotonic() + timeout
        while not self._notes:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise queue.Empty
            self.call_back(self.wait(left_s))
        return self._notes.popleft()

    def wake(self) -> None:
        """Has one that waits return from it, or all; who finds nothing to do has to pass it on."""
        if self._sleeping and self._collector != threading.get_ident():
            os.eventfd_write(self._wake, 1)

    def wait_aside(self, timeout_s: float, is_wanted: Callable[[], bool]) -> None:
        """Waits for a note or for ``wake``, and leaves the sockets to another thread; ``collect`` is to follow.

        Args:
            timeout_s: at most so long.
            is_wanted: whether something came of which no note speaks; who makes it so calls ``wake`` after.
        """
        thread = threading.get_ident()
        self._sleeping.add(thread)
        if not self._notes and not is_wanted() and self._poll_notes.poll(1000 * timeout_s):
            self._forget_wake()
        self._sleeping.discard(thread)

    def next_of(self, kind: type[T]) -> T | None:
        """Takes the first note if it is of this kind; for a thread that leaves all others to the taker."""
        try:
            note = self._notes.popleft()
        except IndexError:
            return None
        if isinstance(note, kind):
            return note
        self._notes.appendleft(note)
        return None

    @property
    def has_notes(self) -> bool:
        return bool(self._notes)

    def get_all(self, timeout_s: float) -> list[Any]:
        """Waits for a note or a socket; takes all the notes that there are, perhaps none."""
        return self.collect(self.wait(timeout_s))

    def wait(self, timeout_s: float, is_wanted: Callable[[], bool] = lambda: False) -> Ready:
        """Waits for a note or a socket; ``collect`` is to follow.  Arguments as for ``wait_aside``."""
        thread = threading.get_ident()
        self._sleeping.add(thread)
        # Who put a note in just before saw nobody waiting, so it has to be seen here.
        try:
            ready = self._epoll.poll(0.0 if self._notes or is_wanted() else timeout_s)
            return [(file, events, self._watches.get(file)) for file, events in ready]
        finally:
            self._sleeping.discard(thread)

    def collect(self, found: Ready) -> list[Any]:
        """Calls back for the sockets that were found; takes all the notes that there are, perhaps none."""
        self.call_back(found)
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._notes.popleft())
        return taken

    def watch(
        self, file: int, on_readable: Callable[[], None], on_writable: Callable[[], None] | None = None
    ) -> None:
        """Calls back on the taker's thread whenever ``file`` can be read, or written; replaces an earlier watch.

        To be called by one thread at a time, and not while another collects.
        """
        events = select.EPOLLIN | (select.EPOLLOUT if on_writable else 0)
        if file in self._watches:
            self._epoll.modify(file, events)
        else:
            self._epoll.register(file, events)
        self._watches[file] = _Watch(on_readable, on_writable)

    def unwatch(self, file: int) -> None:
        """Undoes ``watch``."""
        del self._watches[file]
        self._epoll.unregister(file)

    def call_back(self, found: Ready) -> None:
        """Calls back for the sockets that were found; by one thread at a time."""
        self._collector = threading.get_ident()
        try:
            self._call_each(found)
        finally:
            self._collector = None

    def _forget_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # another one was woken by it, too, and was first
            os.eventfd_read(self._wake)

    def _call_each(self, found: Ready) -> None:
        for file, events, watch in found:
            if file == self._wake:
                self._forget_wake()
                continue
            if watch is None or self._watches.get(file) is not watch:
                continue  # is watched no more, or for something else, since it was found
            # Of one that has hung up, whoever writes or reads hears what happened.
            if watch.on_writable is not None and events & ~select.EPOLLIN:
                watch.on_writable()
            if events & ~select.EPOLLOUT and file in self._watches:
                watch.on_readable()
