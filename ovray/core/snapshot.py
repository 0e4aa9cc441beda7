"""A frozen picture of the scheduler, for progress displays and metrics.

May not enter: anything that changes.  Who takes it: ``Scheduler.snapshot``.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ovray.core.ids import JobId, ReplicaId
from ovray.core.ledger import Ledger, ReplicaState
from ovray.core.requests import Requests
from ovray.core.work import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSnapshot:
    """Says how one replica stands."""

    id: ReplicaId
    device: str
    state: ReplicaState
    #: Silent for much longer than its work should take.
    is_stalled: bool
    requests_outstanding: int
    chunks_outstanding: int
    rows_outstanding: int
    #: As learnt; ``None`` where nothing is known yet.
    rows_per_s: float | None
    #: Rows of requests and of chunks whose completion counted; a losing copy's do not.
    rows_done: int
    #: Seconds in which it had work, as seen from here.
    busy_s: float
    #: Evictions and losses that are not forgiven yet.
    strikes: int
    #: How often it was evicted, and how much of its work was sent again.
    evictions: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnapshot:
    """Says how far one job is; the three parts add up to ``rows_total``."""

    id: JobId
    rows_total: int
    rows_done: int
    rows_outstanding: int
    rows_uncut: int
    backups_running: int

    @property
    def rows_remaining(self) -> int:
        return self.rows_total - self.rows_done


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Says how everything stands at ``now_s``."""

    now_s: float
    replicas: tuple[ReplicaSnapshot, ...]
    jobs: tuple[JobSnapshot, ...]
    requests_waiting: int
    submitters_waiting: int
    #: Late answers, retries, backups and the like, by name: the fields of ``ledger.Counters``.
    counters: dict[str, int]

    @property
    def has_live_replica(self) -> bool:
        """Whether anything works, or will after a wait; without one, all work waits for ``ReplicaReady``."""
        return any(replica.state not in (ReplicaState.LOST, ReplicaState.DRAINING) for replica in self.replicas)


def take_snapshot(ledger: Ledger, jobs: Iterable[Job], requests: Requests) -> Snapshot:
    return Snapshot(
        now_s=ledger.now_s,
        replicas=tuple(
            ReplicaSnapshot(
                id=replica.id,
                device=replica.device,
                state=replica.state,
                is_stalled=replica.is_stalled,
                requests_outstanding=len(replica.requests),
                chunks_outstanding=len(replica.chunks),
                rows_outstanding=replica.rows_outstanding,
                rows_per_s=replica.rate.rows_per_s,
                rows_done=replica.rows_done,
                busy_s=replica.busy_s,
                strikes=replica.strikes,
                evictions=replica.evictions,
                retries=replica.retries,
            )
            for replica in ledger.replicas.values()
        ),
        jobs=tuple(
            JobSnapshot(
                id=job.asked.job,
                rows_total=job.rows_total,
                rows_done=job.rows_done,
                rows_outstanding=job.rows_total - job.rows_done - job.rows_uncut,
                rows_uncut=job.rows_uncut,
                backups_running=job.backups_running,
            )
            for job in jobs
        ),
        requests_waiting=requests.waiting_count,
        submitters_waiting=requests.submitters_count,
        counters=asdict(ledger.counters),
    )
