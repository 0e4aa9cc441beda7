"""Keeps replicas of similar speed together, so that FASTEST_COMPLETION need not look at each of them.

May not enter: anything but the order of replicas within one class.  Caller: policies.py.
"""

import math
from typing import Generic, Protocol, TypeVar

from ovray.core.heap import LazyHeap


class _Timed(Protocol):
    @property
    def order(self) -> int: ...

    @property
    def outstanding(self) -> int: ...

    @property
    def free_at_s(self) -> float: ...

    @property
    def rows_per_s(self) -> float | None: ...


C = TypeVar("C", bound=_Timed)


def speed_of(rows_per_s: float) -> int:
    """Return the class of a rate: two classes for each doubling."""
    return math.floor(2.0 * math.log2(rows_per_s))


class SpeedClass(Generic[C]):
    """Members of similar speed: which with room is free first, and what the busy ones have before them."""

    __slots__ = ("_booked", "_epoch_s", "_open", "_rate_times_free_at", "busy_count", "busy_rate")

    def __init__(self) -> None:
        #: With room: the idle first (fastest of them first), then by when they are expected to be free.
        self._open: LazyHeap[C, tuple[float, float, int]] = LazyHeap()
        #: For each member the rate it was booked with and, where it is busy, when it will be free.
        self._booked: dict[C, tuple[float, float | None]] = {}
        #: Sum of the rates of the members that hold work.
        self.busy_rate = 0.0
        #: How many these are.
        self.busy_count = 0
        #: Sum of rate x (free_at - epoch) of the same: with it the backlog is known at any time without a scan.
        self._rate_times_free_at = 0.0
        #: Keeps the sum above small, so that no digits are lost.
        self._epoch_s = 0.0

    @property
    def is_empty(self) -> bool:
        return not self._booked

    def open(self, member: C, rate: float) -> float:
        """Take note of a member with room, or of what became of it; return the rate it was booked with before."""
        before = self._unbook(member) if member in self._booked else 0.0
        is_idle = self._book(member, rate)
        self._open.set(member, (-math.inf if is_idle else member.free_at_s, -rate, member.order))
        return before

    def close(self, member: C, rate: float) -> float:
        """Take note of a member without room, as ``open`` does."""
        before = self._unbook(member) if member in self._booked else 0.0
        self._open.discard(member)
        self._book(member, rate)
        return before

    def remove(self, member: C) -> float:
        """Forget a member and return the rate it was booked with."""
        self._open.discard(member)
        return self._unbook(member)

    def _unbook(self, member: C) -> float:
        rate, free_at_s = self._booked.pop(member)
        if free_at_s is not None:
            self.busy_count -= 1
            self.busy_rate -= rate
            self._rate_times_free_at -= rate * (free_at_s - self._epoch_s)
        if not self._booked:
            self.busy_rate = self._rate_times_free_at = 0.0
        return rate

    def first_open(self, now_s: float) -> C | None:
        """Return the member with room that is expected to be free first.

        One that should have been free already is taken to need as long again as it is overdue: each look at it
        doubles that, so that it is looked at seldom.
        """
        while (entry := self._open.first_with_key()) is not None:
            first, (free_at_s, rate, order) = entry
            if free_at_s == -math.inf or free_at_s >= now_s:
                return first
            self._open.set(first, (2.0 * now_s - free_at_s, rate, order))
        return None

    def backlog_rows(self, now_s: float) -> float:
        """Return how many rows the busy members are expected to have before them."""
        rows = self._rate_times_free_at - self.busy_rate * (now_s - self._epoch_s)
        return rows if rows > 0.0 else 0.0  # not by ``max``: this is asked of every class at every pick

    def _book(self, member: C, rate: float) -> bool:
        """Note a member's rate and, where it is busy, when it will be free; say whether it is idle."""
        if member.outstanding == 0:
            self._booked[member] = (rate, None)
            return True
        if self.busy_rate == 0.0:
            self._epoch_s = member.free_at_s
            self._rate_times_free_at = 0.0
        self._booked[member] = (rate, member.free_at_s)
        self.busy_count += 1
        self.busy_rate += rate
        self._rate_times_free_at += rate * (member.free_at_s - self._epoch_s)
        return False
