"""Lets rows be scored as they come, and no more of them than somebody takes the results of.

What bounds memory where rows are not all there at the start, or results are not put away at once: rows that were
let in and whose results nobody has taken are never more than there is room for.
May not enter: where rows come from, where results go, Ray.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from ovray.core.events import JobSubmitted
from ovray.core.ids import JobId

#: There is room for so many portions: one in work, the others behind it, or done and waiting to be taken.
PORTIONS = 4

#: A portion has this part of the largest chunk for each replica: chunks of a portion shrink towards its end.
_PORTION_SHARE = 8


class StoppedError(Exception):
    """Ends a job that nobody wants any more; never leaves ovray."""


class Flow:
    """Is ``Supply`` of rows that come, and whose results are taken, while the job runs.

    Three sides, each on its own thread: who adds rows, the driver, and who takes results.
    """

    def __init__(self, job: JobSubmitted) -> None:
        """Begins without rows.

        Args:
            job: how every portion is to be cut; its number and ranges do not count.
        """
        self._job = job
        self._changed = threading.Condition()
        self._portion_rows = 0
        self._nudge: Callable[[], None] = _nobody
        self._portions = 0
        # Each of these only grows, and is never more than the one before it.
        self._added = 0
        self._let_in = 0
        self._done = 0
        self._taken = 0
        self._is_ended = False
        self._is_stopped = False
        self._failure: BaseException | None = None

    def open(self, replicas: int, nudge: Callable[[], None]) -> "Flow":
        """Makes room according to the number of replicas; ``nudge`` has the driver look for more rows."""
        most = max(1, replicas) * max(2 * self._job.min_chunk_rows, self._job.max_chunk_rows // _PORTION_SHARE)
        with self._changed:
            self._portion_rows = most
            self._nudge = nudge
            self._changed.notify_all()
        return self

    # --- who adds rows ---------------------------------------------------------------------------------------

    def add(self, rows: int) -> None:
        """Says that so many more rows are there."""
        with self._changed:
            self._added += rows
        self._nudge()

    def end(self) -> None:
        """Says that there will be no more."""
        with self._changed:
            self._is_ended = True
        self._nudge()

    def fail(self, error: BaseException) -> None:
        """Ends the job with this error: there were to be more rows, but they cannot be had."""
        with self._changed:
            self._failure = error
        self._nudge()

    def wait_for_room(self) -> bool:
        """Waits until another batch may be fetched; False if nobody wants any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._has_room_for_a_batch())
            return not self._is_stopped

    # --- the driver ------------------------------------------------------------------------------------------

    def take(self) -> JobSubmitted | None:
        with self._changed:
            if self._is_stopped:
                raise StoppedError
            if self._failure is not None:
                raise self._failure
            if self._let_in - self._done >= self._portion_rows:
                return None  # a little more would only be cut into little chunks
            room = self._taken + PORTIONS * self._portion_rows
            start, stop = self._let_in, self._last_cut(min(self._added, room), room)
            if stop <= start:
                return None
            self._let_in = stop
            self._portions += 1
            return replace(self._job, job=JobId(self._portions), ranges=((start, stop),))

    @property
    def is_exhausted(self) -> bool:
        with self._changed:
            return self._is_ended and self._let_in == self._added

    def done(self, rows: int) -> None:
        """Says that so many more rows are scored."""
        with self._changed:
            self._done += rows

    # --- who takes results -----------------------------------------------------------------------------------

    def taken(self, rows: int) -> None:
        """Says that results of so many more rows are no burden any more."""
        with self._changed:
            self._taken += rows
            self._changed.notify_all()
        self._nudge()

    def stop(self) -> None:
        """Ends the job: nobody wants results any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._nudge()

    def _last_cut(self, stop: int, room: int) -> int:
        """Returns how far rows are let in so that portions end where chunks may.

        Chunks that end at multiples do so in portions too, unless there will never be room for as many rows.
        """
        multiple = self._job.cut_multiple
        if multiple is None or (self._is_ended and stop == self._added):
            return stop
        whole = stop // multiple * multiple
        is_all_room = stop == room and self._taken == self._let_in
        return stop if whole <= self._let_in and is_all_room else whole

    def _has_room_for_a_batch(self) -> bool:
        return self._added < self._taken + PORTIONS * self._portion_rows


def _nobody() -> None:
    """Is nudged before there is a driver."""
