"""The only record of which replicas there are and what each of them holds.

It books and unbooks; it never chooses.  Who chooses: requests.py, jobs.py, health.py.  May not enter: commands.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ovray.core.events import ReplicaReady
from ovray.core.ids import DispatchId, ReplicaId
from ovray.core.rates import RateEstimate
from ovray.core.work import Chunk, Dispatch, History, RequestWork
from ovray.errors import InvariantError


class ReplicaState(Enum):
    """Says what may be done with a replica; README.md draws the ways between these."""

    READY = "ready"  # gets work
    DRAINING = "draining"  # finishes what it holds, then leaves
    EVICTED = "evicted"  # failed too often; waits for its probe
    PROBING = "probing"  # asked for one inference
    RESTING = "resting"  # back after repeated losses; waits before it gets work
    LOST = "lost"  # gone; holds nothing; may come back


@dataclass(slots=True, eq=False, kw_only=True)
class Replica:
    """One replica: what it may hold, what it holds, how fast it is, how it has behaved."""

    id: ReplicaId
    device: str
    #: Order of first appearance; ties go to the earlier one.
    order: int
    request_window: int
    chunk_window: int
    nireq: int
    rate: RateEstimate
    state: ReplicaState = ReplicaState.READY
    #: Place of its device in the user's order, 0 is first; ``None``: left out, no new work.
    device_rank: int | None = 0
    #: Oldest first; never more than ``request_window``.
    requests: dict[DispatchId, Dispatch] = field(default_factory=dict)
    #: Oldest first; never more than ``chunk_window``.
    chunks: dict[DispatchId, Dispatch] = field(default_factory=dict)
    #: Rows of all its dispatches.
    rows_outstanding: int = 0
    #: When it is expected to have worked off what it holds; in the past where it holds nothing.
    free_at_s: float = -math.inf
    #: Its last answer, or the moment it was given work while it had none.
    heard_s: float = 0.0
    #: Silent for much longer than its work should take; gets no new work until it is heard again.
    is_stalled: bool = False
    #: Was filled to its window and is let run down before the next envelope.
    is_topped_up: bool = False
    failures_in_a_row: int = 0
    #: Evictions and losses not yet forgiven.
    strikes: int = 0
    completions_since_strike: int = 0
    #: As in ``Counters``, for this replica.
    evictions: int = 0
    retries: int = 0
    rows_done: int = 0
    #: Seconds with work, those with a part of ``nireq`` in use counted in part.
    busy_s: float = 0.0
    #: ``busy_s`` since the last completion.
    unbooked_busy_s: float = 0.0
    #: Up to when ``busy_s`` is counted.
    counted_to_s: float = 0.0
    #: ``rows_per_s`` as queues were last told of it.
    told_rows_per_s: float | None = None

    @property
    def is_eligible(self) -> bool:
        """Whether it may be given new work, room or not."""
        return self.state is ReplicaState.READY and not self.is_stalled and self.device_rank is not None

    @property
    def outstanding(self) -> int:
        return len(self.requests) + len(self.chunks)

    @property
    def rows_per_s(self) -> float | None:
        return self.rate.rows_per_s

    def count_busy_time(self, now_s: float) -> None:
        """Bring ``busy_s`` up to date; to be called before what it holds changes."""
        if self.chunks or self.requests:
            share = 1.0 if self.chunks else min(len(self.requests), self.nireq) / self.nireq
            busy_s = (now_s - self.counted_to_s) * share
            self.busy_s += busy_s
            self.unbooked_busy_s += busy_s
        self.counted_to_s = now_s

    def expected_s(self, rows: int, now_s: float) -> float:
        """Return when it would be done with ``rows`` more rows; ``inf`` where its rate is unknown."""
        rate = self.rate.rows_per_s
        if rate is None:
            return math.inf
        return max(max(self.free_at_s, now_s) + rows / rate, now_s + rows * self.nireq / rate)


@dataclass(slots=True, kw_only=True)
class Counters:
    """Counts what is dropped or repeated, so that nothing goes missing in silence."""

    #: Answers to dispatches that were cancelled, lost or answered before.
    late_answers: int = 0
    #: Events about replicas, requests or jobs that are not known, or known and already in that state.
    needless_events: int = 0
    #: Dispatches beyond the first of their chunk or request.
    backups_sent: int = 0
    #: Chunks and requests whose backup copy was done first.
    backups_won: int = 0
    #: Work sent again after a failure or a loss.
    retries: int = 0
    evictions: int = 0
    losses: int = 0
    poisoned: int = 0
    expired: int = 0
    refused: int = 0


class Ledger:
    """Owns replicas and dispatches."""

    def __init__(self) -> None:
        self.now_s = -math.inf
        self.replicas: dict[ReplicaId, Replica] = {}
        self.dispatches: dict[DispatchId, Dispatch] = {}
        self.counters = Counters()
        #: Replicas that changed during this event; a dict for its order.
        self.touched: dict[Replica, None] = {}
        #: The user's order of devices; ``None`` until one is given.
        self._priorities: dict[str, int] | None = None
        self._next_dispatch = 0
        self._next_order = 0

    def enrol(self, ready: ReplicaReady) -> Replica:
        """Take in a new replica, or one that was lost and is back with what it has learnt."""
        known = self.replicas.get(ready.replica)
        if known is None:
            known = self._new_replica(ready)
        elif ready.rate_rows_per_s is not None:
            known.rate = RateEstimate(ready.rate_rows_per_s)
        known.device = ready.device
        known.request_window = ready.request_window
        known.chunk_window = ready.chunk_window
        known.nireq = ready.nireq
        known.state = ReplicaState.READY
        known.failures_in_a_row = 0
        known.is_stalled = False
        known.is_topped_up = False
        self._rank(known)
        self.touched[known] = None
        return known

    def _new_replica(self, ready: ReplicaReady) -> Replica:
        replica = Replica(
            id=ready.replica,
            device=ready.device,
            order=self._next_order,
            request_window=ready.request_window,
            chunk_window=ready.chunk_window,
            nireq=ready.nireq,
            rate=RateEstimate(ready.rate_rows_per_s),
            counted_to_s=self.now_s,
        )
        self._next_order += 1
        self.replicas[replica.id] = replica
        return replica

    def forget(self, replica: Replica) -> None:
        """Strike a drained replica off; it must hold nothing."""
        del self.replicas[replica.id]
        self.touched[replica] = None

    def set_priorities(self, devices: Iterable[str] | None) -> None:
        ranks: dict[str, int] = {}
        for device in devices or ():
            ranks.setdefault(device, len(ranks))
        self._priorities = None if devices is None else ranks
        for replica in self.replicas.values():
            self._rank(replica)
            self.touched[replica] = None

    def _rank(self, replica: Replica) -> None:
        if self._priorities is None:
            replica.device_rank = 0
        else:
            replica.device_rank = self._priorities.get(replica.id, self._priorities.get(replica.device))

    def book(self, replica: Replica, work: RequestWork | Chunk) -> Dispatch:
        """Note that a replica is being sent this work."""
        now_s, rows = self.now_s, work.rows
        replica.count_busy_time(now_s)
        if not replica.requests and not replica.chunks:
            replica.heard_s = now_s
        dispatch = Dispatch(
            id=DispatchId(self._next_dispatch),
            replica=replica.id,
            work=work,
            sent_s=now_s,
            expected_s=replica.expected_s(rows, now_s),
        )
        self._next_dispatch += 1
        self.dispatches[dispatch.id] = dispatch
        work.dispatches[dispatch.id] = dispatch
        held = replica.requests if isinstance(work, RequestWork) else replica.chunks
        held[dispatch.id] = dispatch
        replica.rows_outstanding += rows
        rate = replica.rate.rows_per_s
        replica.free_at_s = max(replica.free_at_s, now_s) + (0.0 if rate is None else rows / rate)
        self.touched[replica] = None
        return dispatch

    @property
    def next_dispatch(self) -> DispatchId:
        """What the next dispatch will be called."""
        return DispatchId(self._next_dispatch)

    def book_lone(self, replica: Replica, rows: int, sent_s: float) -> None:
        """Note a request that an idle replica was sent and has done, as ``book`` and ``book_completion`` would."""
        self._next_dispatch += 1
        busy_s = (self.now_s - sent_s) / replica.nireq
        replica.busy_s += busy_s
        replica.counted_to_s = replica.heard_s = self.now_s
        replica.rate.observe(rows, replica.unbooked_busy_s + busy_s)
        replica.unbooked_busy_s = 0.0
        replica.rows_done += rows

    def find(self, replica_id: ReplicaId, dispatch_id: DispatchId) -> Dispatch | None:
        """Return an outstanding dispatch, or ``None`` for one that is over or was never that replica's."""
        dispatch = self.dispatches.get(dispatch_id)
        if dispatch is None or dispatch.replica != replica_id:
            return None
        return dispatch

    def book_withdrawal(self, dispatch: Dispatch) -> Replica:
        """Unbook a dispatch that was cancelled, failed or lost: nothing is learnt from it."""
        replica = self.replicas[dispatch.replica]
        held = replica.requests if isinstance(dispatch.work, RequestWork) else replica.chunks
        was_running = next(iter(held)) == dispatch.id
        self._unbook(dispatch)
        self._expect(replica)
        if was_running:
            replica.unbooked_busy_s = 0.0
        return replica

    def _unbook(self, dispatch: Dispatch) -> Replica:
        replica = self.replicas[dispatch.replica]
        replica.count_busy_time(self.now_s)
        del self.dispatches[dispatch.id]
        del dispatch.work.dispatches[dispatch.id]
        held = replica.requests if isinstance(dispatch.work, RequestWork) else replica.chunks
        del held[dispatch.id]
        replica.rows_outstanding -= dispatch.work.rows
        self.touched[replica] = None
        return replica

    def book_completion(self, dispatch: Dispatch) -> Replica:
        """Unbook a dispatch that was done, and learn from the time it took."""
        replica, rows = self._unbook(dispatch), dispatch.work.rows
        replica.rate.observe(rows, replica.unbooked_busy_s)
        replica.unbooked_busy_s = 0.0
        replica.rows_done += rows
        self._expect(replica)
        return replica

    def count_retry(self, back_from: Dispatch) -> None:
        """Note that work is to be sent again that came back from a replica without its result."""
        self.counters.retries += 1
        self.replicas[back_from.replica].retries += 1

    def _expect(self, replica: Replica) -> None:
        rate = replica.rate.rows_per_s
        if not replica.requests and not replica.chunks:
            replica.free_at_s = -math.inf
        elif rate is not None:
            replica.free_at_s = self.now_s + replica.rows_outstanding / rate

    def is_barred(self, history: History, replica: Replica, members: dict[ReplicaId, Replica]) -> bool:
        """Say whether work that failed on this replica should rather go to another of ``members``."""
        if replica.id not in history.failed_on:
            return False
        return sum(failed in members for failed in history.failed_on) < len(members)

    def check_invariants(self) -> None:
        """Raise ``InvariantError`` where a window is exceeded or a dispatch is not where it should be."""
        held: dict[DispatchId, Replica] = {}
        for replica in self.replicas.values():
            _check_replica(replica)
            held.update(dict.fromkeys([*replica.requests, *replica.chunks], replica))
        if held.keys() != self.dispatches.keys():
            raise InvariantError(
                f"dispatches {sorted(held.keys() ^ self.dispatches.keys())} are booked on one side only"
            )
        for dispatch in self.dispatches.values():
            if (
                dispatch.work.dispatches.get(dispatch.id) is not dispatch
                or held[dispatch.id].id != dispatch.replica
            ):
                raise InvariantError(f"dispatch {dispatch.id} is booked on the wrong work or replica")


def _check_replica(replica: Replica) -> None:
    if len(replica.requests) > replica.request_window or len(replica.chunks) > replica.chunk_window:
        raise InvariantError(f"{replica.id} holds more than its window")
    if replica.state is ReplicaState.LOST and replica.outstanding:
        raise InvariantError(f"{replica.id} is lost and still holds work")
    rows = sum(dispatch.work.rows for dispatch in (*replica.requests.values(), *replica.chunks.values()))
    if rows != replica.rows_outstanding:
        raise InvariantError(f"{replica.id} holds {rows} rows, {replica.rows_outstanding} are counted")
