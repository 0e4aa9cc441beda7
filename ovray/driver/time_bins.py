"""Adds amounts up over time in a fixed number of bins, however long it takes.

May not enter: what the amounts are.
"""

from array import array
from collections.abc import Iterator

#: Wide enough to see a second of a job that takes minutes, or minutes of one that takes a night.
BINS = 256

#: What a bin covers at first.
_FIRST_WIDTH_S = 1 / 64


class TimeBins:
    """Is a histogram over time from 0: when its bins are full, each two become one."""

    __slots__ = ("_sums", "width_s")

    def __init__(self) -> None:
        self._sums = array("d", bytes(8 * BINS))
        #: What each bin covers.
        self.width_s = _FIRST_WIDTH_S

    def add(self, began_s: float, ended_s: float, amount: float) -> None:
        """Spreads an amount evenly over a time."""
        self.reach(ended_s)
        first, last = self._bin_of(began_s), self._bin_of(ended_s)
        if first == last:
            self._sums[first] += amount
            return
        per_s = amount / (ended_s - began_s)
        self._sums[first] += per_s * ((first + 1) * self.width_s - began_s)
        for number in range(first + 1, last):
            self._sums[number] += per_s * self.width_s
        self._sums[last] += per_s * (ended_s - last * self.width_s)

    def reach(self, end_s: float) -> None:
        """Widens the bins until they cover a time, so that bins of several kinds lie side by side."""
        while end_s > BINS * self.width_s:
            for number in range(BINS // 2):
                self._sums[number] = self._sums[2 * number] + self._sums[2 * number + 1]
            self._sums[BINS // 2 :] = array("d", bytes(8 * (BINS // 2)))
            self.width_s *= 2

    def until(self, end_s: float) -> Iterator[tuple[float, float, float]]:
        """Gives where each bin begins and ends, the last one at ``end_s`` at the latest, and its sum."""
        self.reach(end_s)
        for number, amount in enumerate(self._sums):
            began_s = number * self.width_s
            if began_s >= end_s:
                return
            yield began_s, min(began_s + self.width_s, end_s), amount

    def _bin_of(self, at_s: float) -> int:
        return min(int(at_s / self.width_s), BINS - 1)
