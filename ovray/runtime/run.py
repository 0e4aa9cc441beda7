"""One inference of a request, from its start to the return of its callback.

May not enter: how it is started (request.py, async_queue.py), what its results look like.

One is made for each inference, so it is made lean: what few ask for (a lock to wait at, its end in detail) comes
into being when somebody asks.  The lock is a bare one: an Event costs five times as much.
"""

import threading
from collections.abc import Callable
from typing import Any

from ovray.core.ids import RequestId
from ovray.driver.calls import Ended
from ovray.driver.small_requests import Ends, Joined, SmallRequest

#: Guards the making of what waiters wait at.
_making = threading.Lock()


class Run(SmallRequest):
    """Is one inference."""

    __slots__ = (
        "_ended",
        "_is_done",
        "_over",
        "_place",
        "_whole",
        "are_outputs_taken",
        "callback",
        "callback_error",
        "callback_thread",
        "has_ended",
        "holder",
        "is_small",
        "request",
        "slot",
        "then",
    )

    def __init__(
        self,
        callback: Callable[..., Any] | None = None,
        then: Callable[["Run"], None] | None = None,
        slot: int = 0,
        request: Any = None,
    ) -> None:
        """Has not begun.

        Args:
            callback: runs on a callback thread after an inference that succeeded.
            then: is called last, on whichever thread: it must be quick and must not wait.
            slot: of the queue that it runs for.
            request: whose inference it is.
        """
        self.callback = callback
        self.then = then
        self.slot = slot
        self.request = request
        #: What must live until it is over.
        self.holder: Any = None
        #: Whether it went the way of small requests.
        self.is_small = False
        self.ends: Ends | None = None
        self.number: RequestId | None = None
        self.is_over = False
        self.is_taken = False
        #: Whether the answer is there; the callback may be still to come.
        self.has_ended = False
        self.are_outputs_taken = False
        self.callback_thread: int | None = None
        self.callback_error: Exception | None = None
        self._ended: Ended | None = None
        self._whole: Joined | None = None
        self._place = 0
        self._is_done = False
        self._over: threading.Lock | None = None

    @property
    def ended(self) -> Ended | None:
        """Says how it ended; ``None`` before that."""
        if self._ended is None and self._whole is not None:
            self._ended = self._whole.ended(self._place, self.submitted_s)
        return self._ended

    @property
    def total_s(self) -> float:
        """Seconds from submission to answer; 0 before that."""
        if self._whole is not None:
            return self._whole.total_s(self.submitted_s)
        return 0.0 if self._ended is None else self._ended.total_s

    @property
    def error(self) -> Exception | None:
        return None if self._ended is None else self._ended.error

    @property
    def whole(self) -> Joined | None:
        """What its results are a part of, at ``place``; ``None`` where they came by themselves, or not at all."""
        return self._whole

    @property
    def place(self) -> int:
        return self._place

    def take_end(self, how: Ended) -> None:
        """Takes the answer."""
        self._ended = how
        self.has_ended = True

    def take_place(self, whole: Joined, place: int) -> None:
        """Takes a place in the answer of a bundle."""
        self._place = place
        self._whole = whole
        self.has_ended = True

    def finish(self) -> None:
        """Lets those go on who wait: the callback has returned."""
        # The request keeps its last run: what that holds of it, and of its queue, would keep all of them for ever.
        self.request = self.holder = self.callback = self.ends = None
        self._is_done = True
        if self._over is not None:
            self._over.release()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until the callback has returned, too; says whether it has."""
        if self._is_done:
            return True
        with _making:
            if self._over is None:
                over = threading.Lock()
                over.acquire()
                self._over = over
        # Whoever finished just before saw nobody waiting.
        if not self._is_done and self._over.acquire(timeout=-1 if timeout_s is None else timeout_s):
            self._over.release()  # for the next who waits
        return self._is_done
