"""What the scheduler tells its driver to do: imperatives, carried out in the order given.

May not enter: tensors, handles, futures.  The facts that lead to these are in events.py.
"""

from dataclasses import dataclass

from ovray.core.events import FailureCause
from ovray.core.ids import DispatchId, JobId, ReplicaId, RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class SendEnvelope:
    """Send these requests to a replica in one message; each has a dispatch of its own."""

    replica: ReplicaId
    requests: tuple[tuple[DispatchId, RequestId], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendChunk:
    """Send rows ``start`` up to, not including, ``stop`` of a job to a replica."""

    replica: ReplicaId
    dispatch: DispatchId
    job: JobId
    start: int
    stop: int
    #: Set for a row that is not to be run any more but to be put on record, and why; see ``Poison.PUT_ASIDE``.
    verdict: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDispatch:
    """Tell a replica that nobody needs this any more; its answer, if any, will be dropped."""

    replica: ReplicaId
    dispatch: DispatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRequest:
    """Let the submitter of this request go on: there is room for it in the queue."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseRequest:
    """Tell the submitter that the queue is full and the request was not taken."""

    request: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverResult:
    """Hand the result of this dispatch to the caller: the request's first and only one."""

    request: RequestId
    dispatch: DispatchId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverError:
    """End this request with one clear error."""

    request: RequestId
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitChunk:
    """Count these rows as done: their first commit has come in."""

    job: JobId
    dispatch: DispatchId
    replica: ReplicaId
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob:
    """Tell the caller that every row of the job is done."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class FailJob:
    """End the job with one clear error; ``start`` and ``stop`` say which rows it was about, where known."""

    job: JobId
    message: str
    start: int | None = None
    stop: int | None = None
    #: Whose failure it was; where it was the input's, the message already says which rows.
    cause: FailureCause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReplica:
    """Ask an evicted replica for one inference.

    The answer is ``ReplicaReady`` if it passes, ``ProbeFailed`` if not, ``ReplicaLost`` if the process is gone.
    """

    replica: ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseReplica:
    """Let a drained replica go: it holds nothing."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    """Send ``TimerFired`` at this time; a later ``WakeAt`` replaces an earlier one."""

    at_s: float


Command = (
    SendEnvelope
    | SendChunk
    | CancelDispatch
    | AcceptRequest
    | RefuseRequest
    | DeliverResult
    | DeliverError
    | CommitChunk
    | FinishJob
    | FailJob
    | ProbeReplica
    | ReleaseReplica
    | WakeAt
)
