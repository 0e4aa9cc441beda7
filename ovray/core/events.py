"""What can happen to the scheduler: facts, in the past tense, plain enough to print as JSON lines.

May not enter: tensors, handles, futures, clocks.  Time arrives beside each event, as ``now_s``.
The answers to these are in commands.py.
"""

import math
from dataclasses import dataclass
from enum import Enum

from ovray.core.ids import DispatchId, JobId, ReplicaId, RequestId

#: How many copies of a job's last chunks may run at once, unless its caller says otherwise.
MAX_BACKUPS = 16


class FailureCause(Enum):
    """Says whom a failure belongs to (design.md, promise 3)."""

    DEVICE = "device"  # the work moves elsewhere
    INPUT = "input"  # the error goes to the caller, the replica stays


class WhenFull(Enum):
    """Says what a submitter wants when the queue is at its bound."""

    WAIT = "wait"
    REFUSE = "refuse"


class Poison(Enum):
    """Says what becomes of rows that kill the processes that hold them."""

    FAIL = "fail"  # they end their job
    PUT_ASIDE = "put aside"  # they are narrowed down to single rows, which are sent with the verdict on them


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReady:
    """A replica has compiled its model, for the first time or after a loss, and may be given work."""

    replica: ReplicaId
    #: What priorities and pinned requests name, such as ``node-a/GPU.0``.
    device: str
    #: How many requests may be outstanding there: nireq plus the prefetch that hides the round trip.
    request_window: int
    #: How many chunks may be outstanding there: the one that runs and those being read ahead.
    chunk_window: int
    #: How many requests it runs side by side; a chunk has all of them to itself.
    nireq: int = 1
    #: Rows per second that the warm-up measured; ``None`` where it measured nothing.
    rate_rows_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDraining:
    """A replica gets no new work; it leaves when it holds none."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLost:
    """The process of a replica is gone, or the driver has given it up."""

    replica: ReplicaId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed:
    """A probed replica is alive but still cannot infer; it is probed again, later than before."""

    replica: ReplicaId
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSubmitted:
    """A driver script asked for one inference of ``rows`` rows."""

    request: RequestId
    rows: int = 1
    #: Higher goes first.
    priority: int = 0
    #: The time after which nobody wants the answer, on the clock of ``now_s``.
    deadline_s: float = math.inf
    #: Only this replica or device may run it.
    pinned_to: str | None = None
    when_full: WhenFull = WhenFull.WAIT
    #: Replicas that have died already while they held this, as a part of something larger.
    kills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCancelled:
    """The caller no longer wants a request; ``DeliverError`` ends it, unless it has ended already."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted:
    """A data set is to be scored: row ranges that the scheduler cuts into chunks, late."""

    job: JobId
    #: Rows to do, as half-open ranges in ascending order; several where an earlier run did parts.
    ranges: tuple[tuple[int, int], ...]
    #: Rows at which a cut costs a reader least (row group and file edges), ascending.  A wish, not an order.
    cheap_cuts: tuple[int, ...] = ()
    #: No chunk goes beyond a multiple of this, and chunks end there as long as they do not take too long.
    cut_multiple: int | None = None
    min_chunk_rows: int = 1
    max_chunk_rows: int = 1 << 40
    #: A chunk is cut so that its replica is expected to need no longer than this.
    max_chunk_s: float = 10.0
    #: A chunk that takes less than this is not worth its message, save for the last rows.
    min_chunk_s: float = 0.05
    #: How many copies of the last chunks may run beside the originals; 0 turns backup copies off.
    max_backups: int = MAX_BACKUPS
    poison: Poison = Poison.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    """The caller no longer wants a job; ``FailJob`` ends it, unless it has ended already."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A replica finished one dispatch: a request, or a chunk that is now committed."""

    replica: ReplicaId
    dispatch: DispatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A replica reported that one dispatch failed; the replica itself is alive."""

    replica: ReplicaId
    dispatch: DispatchId
    cause: FailureCause
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """The moment that a ``WakeAt`` asked for has come.  Early, late and needless ones do no harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrioritiesChanged:
    """The devices have a new order, first is best; those left out get no new work."""

    #: Names of devices or ids of replicas; the id of a replica counts more than its device.  ``None``: there is no
    #: order any more, and nobody is left out.
    devices: tuple[str, ...] | None


Event = (
    ReplicaReady
    | ReplicaDraining
    | ReplicaLost
    | ProbeFailed
    | RequestSubmitted
    | RequestCancelled
    | JobSubmitted
    | JobCancelled
    | Completed
    | Failed
    | TimerFired
    | PrioritiesChanged
)
