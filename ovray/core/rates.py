"""Learns how many rows a second a replica does, and follows it as it drifts.

The estimate is rows over busy time, both summed with older ones fading: long chunks weigh more than short
ones, and a device that throttles to half its speed is seen at 60% after three completions, at 55% after five.
May not enter: clocks; which replica is meant; what the rate is used for.
"""

#: What each completion leaves of the weight of those before it: five or six completions count.
_KEPT_WEIGHT = 0.7

#: One observation is taken as at most this many times longer than expected: a pause of a minute must not
#: make a replica look a thousand times slower for its next twenty completions.
_SLOWEST_BELIEVED = 4.0

#: Completions closer together than this part of the last one's time were one batch inside the replica.
_SAME_BATCH_SHARE = 0.05


class RateEstimate:
    """Holds the learnt rate of one replica; a seed from the warm-up counts like one earlier completion."""

    __slots__ = ("_batch_busy_s", "_batch_rows", "_busy_s", "_rows", "is_proven", "rows_per_s")

    def __init__(self, seed_rows_per_s: float | None = None) -> None:
        #: Rows per second; ``None`` while nothing is known.
        self.rows_per_s = seed_rows_per_s
        #: Whether real work has been seen, not only a warm-up.
        self.is_proven = False
        self._rows = 0.0
        self._busy_s = 0.0
        self._batch_rows = 0.0
        self._batch_busy_s = 0.0

    def observe(self, rows: int, busy_s: float) -> None:
        """Take in that ``rows`` more rows came back after ``busy_s`` more seconds of work."""
        if self.rows_per_s is not None:
            # The first answer of a batch brings the time of the whole batch: as long as the last one is no pause.
            expected_s = max(rows / self.rows_per_s, self._batch_busy_s)
            busy_s = min(busy_s, _SLOWEST_BELIEVED * expected_s)
        if busy_s > _SAME_BATCH_SHARE * self._batch_busy_s:
            self._fade(busy_s)
        self._batch_rows += rows
        self._batch_busy_s += busy_s
        busy_total_s = self._busy_s + self._batch_busy_s
        if busy_total_s > 0.0:
            self.rows_per_s = (self._rows + self._batch_rows) / busy_total_s
            self.is_proven = True

    def _fade(self, busy_s: float) -> None:
        if not self.is_proven and self.rows_per_s is not None:
            self._busy_s = _KEPT_WEIGHT * busy_s
            self._rows = self._busy_s * self.rows_per_s
        else:
            self._rows = _KEPT_WEIGHT * (self._rows + self._batch_rows)
            self._busy_s = _KEPT_WEIGHT * (self._busy_s + self._batch_busy_s)
        self._batch_rows = 0.0
        self._batch_busy_s = 0.0
