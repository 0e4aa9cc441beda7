"""Keeps what each request took, and sums it up by ``benchmark_app``'s rules.

May not enter: sending requests, printing.
"""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ovray.core.ids import ReplicaId
from ovray.driver.calls import Ended


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the smallest value that so many percent of all are not above.

    Args:
        ordered: ascending, at least one.
        percent: above 0, up to 100.

    Source: ``benchmark_app`` of OpenVINO 2026.4, ``percentile``.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
        2.0
    """
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Sums up one part of the time that requests took."""

    #: The percentile that was asked for; the median where none was.
    percentile_s: float
    average_s: float
    min_s: float
    max_s: float

    @staticmethod
    def of(seconds: Iterable[float], percent: float) -> "Latency":
        """Sums up at least one value."""
        ordered = sorted(seconds)
        return Latency(
            percentile_s=percentile(ordered, percent),
            average_s=math.fsum(ordered) / len(ordered),
            min_s=ordered[0],
            max_s=ordered[-1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Says where the time of requests went; each part is summed up on its own."""

    end_to_end: Latency
    #: In the driver's queue, and in the replica's.
    queue: Latency
    #: To the replica and back, and all else that is no queue and no inference.
    transport: Latency
    #: In the inference.
    device: Latency


class Samples:
    """Collects ended requests, 32 bytes each.  Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self.end_to_end_s = array("d")
        self.queue_s = array("d")
        self.transport_s = array("d")
        self.device_s = array("d")
        self.frames = 0
        #: Rows of the tensors that requests were inferred in, added up over requests.
        self.batch_rows = 0

    def __len__(self) -> int:
        return len(self.end_to_end_s)

    def add(self, how: Ended, frames: int) -> None:
        """Takes a request that ended with outputs."""
        queue_s = how.queued_s + how.replica_queued_s
        self.end_to_end_s.append(how.total_s)
        self.queue_s.append(queue_s)
        self.transport_s.append(max(0.0, how.total_s - queue_s - how.infer_s))
        self.device_s.append(how.infer_s)
        self.frames += frames
        self.batch_rows += how.batch_rows

    def split(self, percent: float) -> Split:
        """Sums up; there must be at least one."""
        return Split(
            end_to_end=Latency.of(self.end_to_end_s, percent),
            queue=Latency.of(self.queue_s, percent),
            transport=Latency.of(self.transport_s, percent),
            device=Latency.of(self.device_s, percent),
        )

    @staticmethod
    def joined(samples: Mapping[ReplicaId, "Samples"]) -> "Samples":
        """Puts those of several replicas together."""
        together = Samples()
        for one in samples.values():
            together.end_to_end_s.extend(one.end_to_end_s)
            together.queue_s.extend(one.queue_s)
            together.transport_s.extend(one.transport_s)
            together.device_s.extend(one.device_s)
            together.frames += one.frames
            together.batch_rows += one.batch_rows
        return together
