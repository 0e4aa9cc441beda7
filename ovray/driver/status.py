"""Says in a few numbers how a pool or a job of some driver stands: made there, read by those who watch a cluster.

May not enter: Ray (status_board.py), how it is shown.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from ovray.driver.meter import TIME_BOUNDS_S, ReplicaMeter
from ovray.driver.reading import LEFT, Reading, ReplicaReading
from ovray.logs import run_id

#: Rates and percentiles are those of the last so many seconds.
WINDOW_S = 10.0

#: Replicas that a status names, those with failures first; figures of the whole cover all.
REPLICAS_NAMED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """Says how one replica stands; figures are those of the window unless they say otherwise."""

    id: str
    state: str
    outstanding: int
    #: Requests, or rows of a job.
    per_s: float
    p50_s: float | None
    p99_s: float | None
    #: Since the beginning.
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Says how one pool or job stands."""

    run: str
    #: ``requests`` or ``chunks``.
    work: str
    model: str
    #: Of the driver.
    host: str
    pid: int
    #: Unix time, by the driver's clock.
    at_s: float
    #: Requests, or rows of a job.
    per_s: float
    #: Of requests, or of chunks; ``None`` where none ended within the window.
    p50_s: float | None
    p99_s: float | None
    #: Since the beginning: requests, or chunks.
    done: int
    failed: int
    rejected: int
    retried: int
    waiting: int
    outstanding: int
    #: Of a job.
    rows_done: int
    rows_total: int
    hosts: tuple[str, ...]
    #: How many replicas are in each state.
    states: Mapping[str, int]
    replicas: tuple[ReplicaStatus, ...]
    replicas_left_out: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Status":
        """Reads what ``to_json`` gave.  Raises TypeError or KeyError where it is of another version of ovray."""
        replicas = tuple(ReplicaStatus(**replica) for replica in fields.pop("replicas"))
        status = Status(**fields, replicas=replicas)
        return replace(status, hosts=tuple(status.hosts))


class StatusMaker:
    """Makes statuses of readings, which it compares with those of a while ago."""

    def __init__(self, model: str, work: str, wall_clock: Callable[[], float] = time.time) -> None:
        """Has seen nothing yet.

        Args:
            model: how the model is called.
            work: ``requests`` or ``chunks``.
            wall_clock: gives Unix time.
        """
        self._model = model
        self._work = work
        self._wall_clock = wall_clock
        self._seen: deque[Reading] = deque()

    def make(self, now: Reading) -> Status:
        """Takes in a reading, and says how things stand."""
        while len(self._seen) > 1 and self._seen[1].now_s <= now.now_s - WINDOW_S:
            self._seen.popleft()
        self._seen.append(now)
        before = self._seen[0]
        seconds = now.now_s - before.now_s
        earlier = {replica.id: replica for replica in before.replicas}
        present = [replica for replica in now.replicas if replica.state != LEFT]
        replicas = [self._replica(replica, earlier.get(replica.id), seconds) for replica in present]
        times = [_ended(replica, earlier.get(replica.id)) for replica in now.replicas]
        together = [sum(counts) for counts in zip(*times, strict=True)]
        states: dict[str, int] = {}
        for replica in present:
            states[replica.state] = states.get(replica.state, 0) + 1
        named = sorted(replicas, key=lambda replica: (replica.state == "ready", -replica.failed))[:REPLICAS_NAMED]
        kept = {replica.id for replica in named}
        return Status(
            run=run_id(),
            work=self._work,
            model=self._model,
            host=socket.gethostname(),
            pid=os.getpid(),
            at_s=self._wall_clock(),
            per_s=sum(replica.per_s for replica in replicas),
            p50_s=quantile(together, 0.5),
            p99_s=quantile(together, 0.99),
            done=sum(replica.meter.succeeded for replica in now.replicas),
            failed=now.elsewhere.failed + sum(replica.meter.failed for replica in now.replicas),
            rejected=now.rejected,
            retried=sum(replica.retries for replica in now.replicas),
            waiting=now.waiting,
            outstanding=sum(replica.outstanding for replica in now.replicas),
            rows_done=now.rows_done,
            rows_total=now.rows_total,
            hosts=tuple(dict.fromkeys(replica.host for replica in present)),
            states=states,
            replicas=tuple(replica for replica in replicas if replica.id in kept),
            replicas_left_out=len(replicas) - len(kept),
        )

    def _replica(self, now: ReplicaReading, before: ReplicaReading | None, seconds: float) -> ReplicaStatus:
        times = _ended(now, before)
        more = self._amount(now) - (0 if before is None else self._amount(before))
        return ReplicaStatus(
            id=now.id,
            state=now.state,
            outstanding=now.outstanding,
            per_s=max(0, more) / seconds if seconds > 0 else 0.0,
            p50_s=quantile(times, 0.5),
            p99_s=quantile(times, 0.99),
            failed=now.meter.failed,
        )

    def _amount(self, reading: ReplicaReading) -> int:
        return reading.rows_done if self._work == "chunks" else reading.meter.succeeded


def _ended(now: ReplicaReading, before: ReplicaReading | None) -> list[int]:
    """Counts by bucket what ended between two readings."""
    earlier = (ReplicaMeter() if before is None else before.meter).end_to_end_s.counts
    return [max(0, count - less) for count, less in zip(now.meter.end_to_end_s.counts, earlier, strict=True)]


def quantile(counts: Sequence[int], fraction: float) -> float | None:
    """Estimates a quantile of times, as ``histogram_quantile`` does: linearly within its bucket.

    Args:
        counts: for each bucket of ``meter.TIME_BOUNDS_S`` and the one above; or nothing.
        fraction: between 0 and 1.

    Returns:
        Seconds; ``None`` where nothing was counted.
    """
    if not any(counts):
        return None
    bounds = TIME_BOUNDS_S
    wanted = fraction * sum(counts)
    for index, (below, upto) in enumerate(pairwise((0, *accumulate(counts)))):
        if upto >= wanted and upto > below:
            if index == len(bounds):
                return bounds[-1]
            start = bounds[index - 1] if index else 0.0
            return start + (bounds[index] - start) * (wanted - below) / (upto - below)
    raise AssertionError("some bucket holds the last of them")
