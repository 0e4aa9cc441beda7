"""Says how fast a job goes now and on average, and when it will be done.

May not enter: printing, clocks.
"""

from collections import deque
from dataclasses import dataclass

#: What "now" means: long enough for several chunks of each replica, whose rows count when a chunk is complete.
NOW_S = 60.0

#: Between two looks that are remembered.
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    at_s: float
    rows: int


class Pace:
    """Remembers how many rows were done when, for the last minute.

    Example:
        >>> pace = Pace()
        >>> for second in range(11):
        ...     pace.look(float(second), 100 * second)
        >>> pace.rows_per_s_now, pace.left_s(500)
        (100.0, 5.0)
    """

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()

    def look(self, running_s: float, rows_done: int) -> None:
        """Takes in how many rows are done after ``running_s`` of work."""
        last = self._looks[-1] if self._looks else None
        if last is not None and running_s - last.at_s < _LOOK_EVERY_S and rows_done == last.rows:
            return
        if last is None:
            self._looks.append(_Look(at_s=0.0, rows=0))
        self._looks.append(_Look(at_s=running_s, rows=rows_done))
        while len(self._looks) > 2 and self._looks[1].at_s <= running_s - NOW_S:
            self._looks.popleft()

    @property
    def rows_per_s(self) -> float:
        """Rows per second on average."""
        return self._looks[-1].rows / self._looks[-1].at_s if self._looks and self._looks[-1].at_s > 0 else 0.0

    @property
    def rows_per_s_now(self) -> float:
        """Rows per second over the last minute, or since the beginning where that is shorter."""
        if not self._looks:
            return 0.0
        first, last = self._looks[0], self._looks[-1]
        return (last.rows - first.rows) / (last.at_s - first.at_s) if last.at_s > first.at_s else 0.0

    def left_s(self, rows_left: int) -> float | None:
        """Returns how long the rest takes if it goes on as now; ``None`` while nothing moves."""
        return rows_left / self.rows_per_s_now if self.rows_per_s_now > 0 else None
