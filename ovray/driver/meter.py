"""Counts what becomes of work, on the driver thread: whole numbers and buckets, nothing that waits.

May not enter: Ray, threads, how figures are shown (reading.py, metrics_export.py).  A request costs its driver
some tens of microseconds, so the way of one that goes well is short: one tuple, and arithmetic on a thousand at
once.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ovray.core import commands, events
from ovray.core.ids import DispatchId, ReplicaId
from ovray.driver.calls import Ended
from ovray.driver.switches import read_switch

#: Upper ends of the buckets of times: those of OpenVINO Model Server, from 10 us to 24 minutes.
TIME_BOUNDS_S = tuple(math.floor(10 * 1.8**i) / 1e6 for i in range(33))

#: And of counts: rows of a tensor, requests of a message.
SIZE_BOUNDS = tuple(float(1 << i) for i in range(17))

#: Requests whose times are kept until they are put into buckets together.
_FOLDED_TOGETHER = 1024

_TIME_BOUNDS_S = np.array(TIME_BOUNDS_S)
_SIZE_BOUNDS = np.array(SIZE_BOUNDS)


class Figures(Enum):
    """Says whether work is counted, and those told who watch a cluster."""

    ON = "on"
    OFF = "off"

    @staticmethod
    def parse(environment: Mapping[str, str]) -> "Figures":
        """Reads ``OVRAY_METRICS``.

        Raises:
            ConfigError: it is neither ``on`` nor ``off``.
        """
        return read_switch(environment, "OVRAY_METRICS", Figures.ON)


class Histogram:
    """Counts values by buckets; the last one has those above all bounds.

    Example:
        >>> sizes = Histogram((1.0, 2.0, 4.0))
        >>> sizes.add(2.0)
        >>> sizes.add(9.0, times=2)
        >>> sizes.counts, sizes.sum
        ([0, 1, 0, 2], 20.0)
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Is empty; ``bounds`` ascend, and belong to the buckets below them."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def add_since(self, moments: "Moments", now: float) -> None:
        """Counts by how much ``now`` is behind each moment, at a cost that hardly grows with their number."""
        at, last = bisect_left(self.bounds, now - moments.last), bisect_left(self.bounds, now - moments.first)
        left = len(moments.all)  # the earlier a moment, the later its bucket
        while at < last:
            later = bisect_left(moments.all, -self.bounds[at], 0, left, key=lambda moment: moment - now)
            self.counts[at] += left - later
            at, left = at + 1, later
        self.counts[last] += left
        self.sum += now * len(moments.all) - moments.sum

    def add_array(self, values: NDArray[np.float64], bounds: NDArray[np.float64]) -> None:
        """Counts values; ``bounds`` are this histogram's own, as an array."""
        found = np.bincount(np.searchsorted(bounds, values), minlength=len(self.counts))
        self.counts = [before + more for before, more in zip(self.counts, found.tolist(), strict=True)]
        self.sum += float(values.sum())

    def copy(self) -> "Histogram":
        """Returns one that stays as this is now."""
        copied = Histogram(self.bounds)
        copied.counts, copied.sum = self.counts.copy(), self.sum
        return copied


class Moments:
    """Holds when some requests were submitted, at least one, in order of time."""

    __slots__ = ("all", "first", "last", "sum")

    def __init__(self, moments: Sequence[float]) -> None:
        self.all = sorted(moments)  # they almost are: this is one look at each
        self.first = self.all[0]
        self.last = self.all[-1]
        self.sum = sum(moments)


def _times() -> Histogram:
    return Histogram(TIME_BOUNDS_S)


def _sizes() -> Histogram:
    return Histogram(SIZE_BOUNDS)


@dataclass(slots=True, kw_only=True)
class ReplicaMeter:
    """Counts the work of one replica, or what ended at none."""

    succeeded: int = 0
    failed: int = 0
    #: In the driver's queue and the replica's; of work that went well, as all times are.
    wait_s: Histogram = field(default_factory=_times)
    #: There and back, and all else that is neither.
    transport_s: Histogram = field(default_factory=_times)
    inference_s: Histogram = field(default_factory=_times)
    end_to_end_s: Histogram = field(default_factory=_times)
    #: Rows of the tensor in which a request was inferred.
    batch_rows: Histogram = field(default_factory=_sizes)
    #: Requests that went in one message.
    envelope_requests: Histogram = field(default_factory=_sizes)
    #: Wait, inference, end to end, and rows of the tensor, of requests that are not in the buckets yet.
    pending: list[tuple[float, float, float, float]] = field(default_factory=list)

    def fold(self) -> None:
        """Puts pending requests into the buckets."""
        if not self.pending:
            return
        wait_s, inference_s, end_to_end_s, rows = np.array(self.pending).T
        self.pending.clear()
        self.succeeded += len(wait_s)
        self.wait_s.add_array(wait_s, _TIME_BOUNDS_S)
        self.inference_s.add_array(inference_s, _TIME_BOUNDS_S)
        self.end_to_end_s.add_array(end_to_end_s, _TIME_BOUNDS_S)
        transport_s = np.maximum(end_to_end_s - wait_s - inference_s, 0.0)
        self.transport_s.add_array(transport_s, _TIME_BOUNDS_S)
        self.batch_rows.add_array(rows, _SIZE_BOUNDS)

    def copy(self) -> "ReplicaMeter":
        """Returns one that stays as this is now."""
        self.fold()
        return ReplicaMeter(
            succeeded=self.succeeded,
            failed=self.failed,
            wait_s=self.wait_s.copy(),
            transport_s=self.transport_s.copy(),
            inference_s=self.inference_s.copy(),
            end_to_end_s=self.end_to_end_s.copy(),
            batch_rows=self.batch_rows.copy(),
            envelope_requests=self.envelope_requests.copy(),
        )


class Meter:
    """Counts by replica; ``None`` stands for what ended before any had it."""

    def __init__(self) -> None:
        self.replicas: dict[ReplicaId | None, ReplicaMeter] = {}

    def of(self, replica: ReplicaId | None) -> ReplicaMeter:
        """Returns what counts for one replica."""
        found = self.replicas.get(replica)
        if found is None:
            found = self.replicas[replica] = ReplicaMeter()
        return found

    def copy(self) -> dict[ReplicaId | None, ReplicaMeter]:
        """Returns all that was counted, to stay as it is now."""
        return {replica: meter.copy() for replica, meter in self.replicas.items()}


class RequestMeter(Meter):
    """Counts requests."""

    def sent(self, replica: ReplicaId, requests: int) -> None:
        """Counts a message with so many requests."""
        self.of(replica).envelope_requests.add(requests)

    def ended(self, how: Ended) -> None:
        """Counts a request."""
        meter = self.replicas.get(how.replica) or self.of(how.replica)
        if how.error is not None:
            meter.failed += 1
            return
        pending = meter.pending
        pending.append((how.queued_s + how.replica_queued_s, how.infer_s, how.total_s, how.batch_rows))
        if len(pending) >= _FOLDED_TOGETHER:
            meter.fold()

    def ended_together(self, how: Ended, submitted_s: float, each_s: Sequence[float]) -> None:
        """Counts requests that went as one, and well.

        Args:
            how: the one went.
            submitted_s: when the one was submitted whose times those are.
            each_s: and when each of them was, at least one.
        """
        meter, count = self.of(how.replica), len(each_s)
        meter.succeeded += count
        wait_s = how.queued_s + how.replica_queued_s
        moments = Moments(each_s)
        meter.wait_s.add_since(moments, submitted_s + wait_s)
        meter.end_to_end_s.add_since(moments, submitted_s + how.total_s)
        meter.inference_s.add(how.infer_s, count)
        meter.transport_s.add(max(0.0, how.total_s - wait_s - how.infer_s), count)
        meter.batch_rows.add(how.batch_rows, count)


class NoRequestMeter(RequestMeter):
    """Counts nothing."""

    def sent(self, replica: ReplicaId, requests: int) -> None:
        """Looks away."""

    def ended(self, how: Ended) -> None:
        """Looks away."""

    def ended_together(self, how: Ended, submitted_s: float, each_s: Sequence[float]) -> None:
        """Looks away."""


def request_meter(figures: Figures) -> RequestMeter:
    """Makes what counts requests, if they are to be counted."""
    return RequestMeter() if figures is Figures.ON else NoRequestMeter()


class ChunkMeter(Meter):
    """Counts the chunks of a job; is shown what its driver's observer is."""

    def __init__(self) -> None:
        super().__init__()
        #: Sendings, copies included.
        self.sent = 0
        self._sent_s: dict[DispatchId, tuple[ReplicaId, float]] = {}
        #: Of the commit that was just seen.
        self._seconds = 0.0

    def note(self, now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
        """Takes in one event, and what the scheduler made of it."""
        match event:
            case events.Failed() if self._sent_s.pop(event.dispatch, None) is not None:
                self.of(event.replica).failed += 1
            case events.ReplicaLost():
                lost = [dispatch for dispatch, (holder, _) in self._sent_s.items() if holder == event.replica]
                for dispatch in lost:
                    del self._sent_s[dispatch]
                self.of(event.replica).failed += len(lost)
        for command in came_of_it:
            match command:
                case commands.SendChunk():
                    self.sent += 1
                    self._sent_s[command.dispatch] = (command.replica, now_s)
                case commands.CommitChunk():
                    _, sent_s = self._sent_s.pop(command.dispatch, (command.replica, now_s))
                    self._seconds = now_s - sent_s
                case commands.CancelDispatch():
                    self._sent_s.pop(command.dispatch, None)

    def committed(self, replica: ReplicaId, replica_s: float, inference_s: float) -> float:
        """Counts the chunk whose commit was noted last; returns what it took from its sending on.

        Args:
            replica: did it.
            replica_s: how long it had it.
            inference_s: for how long of that the device was waited for.
        """
        meter = self.of(replica)
        meter.succeeded += 1
        meter.end_to_end_s.add(self._seconds)
        meter.inference_s.add(inference_s)
        meter.transport_s.add(max(0.0, self._seconds - replica_s))
        return self._seconds
