"""Learns how many rows one inference should take, from how long inferences took: for ``batch_size="auto"``.

May not enter: threads, clocks, requests.  Times arrive with each inference that ended.

A batch doubles as long as twice the rows are waiting and the last doubling paid.  In steps of two, so that a
device which prepares itself anew for each shape has few shapes to prepare for.  Whether it pays depends on the
device: for an MLP a row of 64 costs a twentieth of a row alone; for a conv net on a CPU with AMX, more than alone.
"""

import statistics
from collections import OrderedDict, deque
from collections.abc import Hashable

#: A doubling pays if a row then takes this part of its former time, or less.  Not much less would be noise, and
#: those that were taken first wait for those beside them.
_PAYS_BELOW = 0.85

#: A batch that takes longer than this is worth the wake-up of another infer request that idles.
_SHARED_FROM_S = 0.001

#: Sizes to know of; requests of mixed sizes make many.
_SIZES_KEPT = 128

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
    """Knows the time per row of the batches that were run, by their rows."""

    def __init__(self) -> None:
        #: A deque without times is of a size whose first inference was the preparation, and does not count.
        self._row_s: OrderedDict[int, deque[float]] = OrderedDict()
        self._ended = 0

    def choose(self, first_rows: int, rows_waiting: int, takers: int = 1) -> int:
        """Returns how many rows to take.

        Args:
            first_rows: of the request that is in any case taken.
            rows_waiting: of all that could be, that one included.
            takers: infer requests that idle, the one that asks included; what takes long is shared with them.
        """
        rows, share = first_rows, -(-rows_waiting // takers)
        while 2 * rows <= rows_waiting and self._pays(rows) and (2 * rows <= share or self._is_short(2 * rows)):
            rows *= 2
        return rows

    def ended(self, rows: int, infer_s: float) -> None:
        """Notes how long an inference of so many rows took."""
        if rows not in self._row_s:
            self._row_s[rows] = deque(maxlen=_TIMES_KEPT)
            if len(self._row_s) > _SIZES_KEPT:
                self._row_s.popitem(last=False)
            return
        self._row_s[rows].append(infer_s / rows)
        self._ended += 1
        if self._ended % _TRY_AGAIN_AFTER == 0:
            for times in self._row_s.values():
                times.clear()

    def _is_short(self, rows: int) -> bool:
        """Tells whether so many rows take no time to speak of, as far as smaller batches show."""
        known = self._row_s.get(rows) or self._row_s.get(rows // 2) or ()
        return bool(known) and rows * statistics.median(known) <= _SHARED_FROM_S

    def _pays(self, rows: int) -> bool:
        """Tells whether twice these rows are worth it, or worth a try; a try comes once these are measured."""
        small, double = self._row_s.get(rows, ()), self._row_s.get(2 * rows, ())
        if len(small) < _TIMES_NEEDED:
            return False
        if len(double) < _TIMES_NEEDED:
            return True
        return statistics.median(double) <= _PAYS_BELOW * statistics.median(small)
