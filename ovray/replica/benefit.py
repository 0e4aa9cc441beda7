"""Learns how many rows one inference should take, from how long inferences took: for ``batch_size="auto"``.

May not enter: threads, clocks, requests.  Times arrive with each inference that ended.

A batch doubles as long as twice the rows are waiting and the last doubling paid.  Sizes are powers of two, so that
a device which prepares itself anew for each shape has few shapes to prepare for.
"""

import statistics
from collections import OrderedDict, deque
from collections.abc import Hashable

#: A doubling pays if a row then takes this part of its former time, or less.
_PAYS_BELOW = 0.95

#: Of each size: the newest times, of which the median counts, so that one disturbed inference decides nothing.
_TIMES_KEPT = 7
_TIMES_NEEDED = 3

#: After so many inferences, a size that did not pay is tried again: the load on the device may have changed.
_TRY_AGAIN_AFTER = 1000

#: Shapes of requests to learn about; the one that was not asked about for longest is forgotten.
_SHAPES_KEPT = 256


class BatchBenefits:
    """Keeps a ``BatchBenefit`` for each shape of requests: their times have nothing to say to each other."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Hashable, BatchBenefit] = OrderedDict()

    def of(self, key: Hashable) -> "BatchBenefit":
        """Returns what is known of the requests with this key."""
        benefit = self._by_key.setdefault(key, BatchBenefit())
        self._by_key.move_to_end(key)
        if len(self._by_key) > _SHAPES_KEPT:
            self._by_key.popitem(last=False)
        return benefit


class BatchBenefit:
    """Knows the time per row of each size, a power of two, that was tried."""

    def __init__(self) -> None:
        self._row_s: dict[int, deque[float]] = {}
        #: Sizes whose first inference is still to come; it pays for the preparation and does not count.
        self._prepared: set[int] = set()
        self._ended = 0

    def choose(self, rows_waiting: int) -> int:
        """Returns how many of the waiting rows to take: the largest power of two that is worth it, at least 1."""
        size = 1
        while 2 * size <= rows_waiting and self._pays(size):
            size *= 2
        return size

    def ended(self, rows: int, infer_s: float) -> None:
        """Notes how long an inference of so many rows took; other sizes than powers of two are passed over."""
        if rows & (rows - 1):
            return
        if rows not in self._prepared:
            self._prepared.add(rows)
            return
        self._row_s.setdefault(rows, deque(maxlen=_TIMES_KEPT)).append(infer_s / rows)
        self._ended += 1
        if self._ended % _TRY_AGAIN_AFTER == 0:
            self._row_s.clear()

    def _pays(self, size: int) -> bool:
        """Tells whether twice this size is worth it; what was not measured often enough is worth a try."""
        small, double = self._row_s.get(size, ()), self._row_s.get(2 * size, ())
        if len(double) < _TIMES_NEEDED or len(small) < _TIMES_NEEDED:
            return True
        return statistics.median(double) <= _PAYS_BELOW * statistics.median(small)
