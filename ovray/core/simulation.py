"""Runs the real scheduler against modelled replicas in modelled time: a cluster tried before it is rented.

The part of the driver is played here: commands become messages that take half a round trip, answers come back
after another half, replicas start, die, hang and drain as the faults say.
May not enter: a second copy of any scheduling decision; wall time.
Models: simulated_replica.py.  Faults and the bound: faults.py.
"""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovray.core.commands import (
    CancelDispatch,
    Command,
    CommitChunk,
    DeliverError,
    DeliverResult,
    FailJob,
    FinishJob,
    ProbeReplica,
    RefuseRequest,
    ReleaseReplica,
    SendChunk,
    SendEnvelope,
    WakeAt,
)
from ovray.core.events import (
    Completed,
    Event,
    Failed,
    FailureCause,
    JobSubmitted,
    ReplicaDraining,
    ReplicaLost,
    ReplicaReady,
    RequestSubmitted,
    TimerFired,
)
from ovray.core.faults import Death, Fault, Mishaps, SlowDown, bound_s
from ovray.core.ids import DispatchId, JobId, ReplicaId, RequestId
from ovray.core.scheduler import Scheduler
from ovray.core.simulated_replica import Item, ReplicaModel, SimulatedReplica

#: One that runs and one that is read ahead.
_CHUNK_WINDOW = 2

#: Called after each event with the time, the event and what the scheduler answered.
Observer = Callable[[float, Event, list[Command]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Describes what is around the replicas: the network, the driver's patience, and what goes wrong."""

    round_trip_s: float = 0.002
    #: How long the driver waits for a silent replica that holds work before it gives it up and kills it.
    give_up_after_s: float = 60.0
    #: After how long a replica that was given up is ready again; ``inf``: never.
    restart_after_s: float = math.inf
    faults: Sequence[Fault] = ()
    mishaps: Mishaps = field(default_factory=Mishaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """Says what one simulated replica did."""

    id: ReplicaId
    rows: int
    #: Part of the makespan in which it did nothing, dead or alive.
    idle_share: float
    #: How long before the end it did its last work.
    tail_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """Says how a simulated job went."""

    rows: int
    makespan_s: float
    #: Rows over the sum of rates, as the faults change it.
    bound_s: float
    #: Rows never committed.
    lost: int
    #: Rows committed more than once.
    duplicated: int
    #: Events that the scheduler handled.
    events: int
    #: Why the job failed, where it did.
    failure: str | None
    replicas: tuple[ReplicaReport, ...]

    @property
    def efficiency(self) -> float:
        return self.bound_s / self.makespan_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """Says how simulated requests fared."""

    requests: int
    p50_s: float
    p99_s: float
    #: Results a second, up to the last one.
    throughput: float
    #: Requests a second that arrived.
    offered: float
    errors: int
    #: Requests that never ended.
    lost: int
    #: Requests that ended more than once.
    duplicated: int
    events: int
    #: Mean number of requests in one envelope.
    requests_per_envelope: float
    replicas: tuple[ReplicaReport, ...]


class Simulation:
    """One rehearsal; to be run once.

    Args:
        scheduler: a fresh one.
        models: the replicas there are.
        around: network, patience, faults.
        seed: the same seed gives the same run.
        observer: called after each event, for tests and traces.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        models: Sequence[ReplicaModel],
        around: Surroundings | None = None,
        *,
        seed: int = 0,
        observer: Observer | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._around = around or Surroundings()
        self._chance = random.Random(seed)
        self._observer = observer
        self._replicas = {model.id: SimulatedReplica(model=model, chance=self._chance) for model in models}
        self.now_s = 0.0
        self.events = 0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ticket = 0
        self._wake_at_s = math.inf
        self._is_over = False
        #: Dispatches sent to a replica and not answered, as its driver sees them.
        self._unanswered: dict[ReplicaId, dict[DispatchId, None]] = {model.id: {} for model in models}
        self._heard_s: dict[ReplicaId, float] = dict.fromkeys(self._replicas, 0.0)
        self._watched: set[ReplicaId] = set()
        self._commits: list[tuple[int, int]] = []
        self._rows_of: dict[ReplicaId, int] = dict.fromkeys(self._replicas, 0)
        self._failure: str | None = None
        self._arrived_s: dict[RequestId, float] = {}
        self._ended: dict[RequestId, int] = {}
        self._latencies_s: list[float] = []
        self._last_result_s = 0.0
        #: Whose answer is being handled.
        self._heard_from = ReplicaId("")
        self._errors = 0
        self._envelopes = 0
        self._sent_requests = 0
        self._carry_out: dict[type[Any], Callable[[Any], None]] = {
            SendChunk: self._send_chunk,
            SendEnvelope: self._send_envelope,
            CancelDispatch: self._cancel,
            CommitChunk: self._commit,
            FinishJob: self._finish,
            FailJob: self._fail,
            DeliverResult: self._deliver_result,
            DeliverError: self._deliver_error,
            RefuseRequest: self._refuse,
            ProbeReplica: self._probe,
            ReleaseReplica: self._release,
            WakeAt: self._wake_at,
        }

    # --- the two kinds of rehearsal -------------------------------------------------------------------------

    def run_job(self, rows: int, **details: Any) -> JobReport:
        """Score ``rows`` rows; ``details`` are further fields of ``JobSubmitted``."""
        self._open()
        self._at(0.0, self._tell, JobSubmitted(job=JobId(0), ranges=((0, rows),), **details))
        self._run()
        lost, duplicated = _count_rows(self._commits, rows)
        return JobReport(
            rows=rows,
            makespan_s=self.now_s,
            bound_s=bound_s([replica.model for replica in self._replicas.values()], self._around.faults, rows),
            lost=lost,
            duplicated=duplicated,
            events=self.events,
            failure=self._failure,
            replicas=self._replica_reports(self.now_s),
        )

    def run_requests(self, rate_per_s: float, duration_s: float, **details: Any) -> RequestReport:
        """Let requests arrive at random (Poisson) for ``duration_s``; ``details``: of ``RequestSubmitted``."""
        self._open()
        arrivals = random.Random(self._chance.random())
        self._at(arrivals.expovariate(rate_per_s), self._arrive, arrivals, rate_per_s, duration_s, details)
        self._run()
        latencies_s = sorted(self._latencies_s)
        return RequestReport(
            requests=len(self._arrived_s),
            p50_s=_percentile(latencies_s, 50),
            p99_s=_percentile(latencies_s, 99),
            throughput=len(latencies_s) / self._last_result_s if self._last_result_s else 0.0,
            offered=len(self._arrived_s) / duration_s,
            errors=self._errors,
            lost=sum(request not in self._ended for request in self._arrived_s),
            duplicated=sum(times > 1 for times in self._ended.values()),
            events=self.events,
            requests_per_envelope=self._sent_requests / max(1, self._envelopes),
            replicas=self._replica_reports(self._last_result_s),
        )

    def _arrive(self, arrivals: random.Random, rate_per_s: float, until_s: float, details: dict[str, Any]) -> None:
        if self.now_s > until_s:
            return
        request = RequestId(len(self._arrived_s))
        self._arrived_s[request] = self.now_s
        self._tell(RequestSubmitted(request=request, **details))
        next_s = self.now_s + arrivals.expovariate(rate_per_s)
        self._at(next_s, self._arrive, arrivals, rate_per_s, until_s, details)

    # --- time -----------------------------------------------------------------------------------------------

    def _at(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        if at_s < math.inf:
            self._ticket += 1
            heapq.heappush(self._agenda, (at_s, self._ticket, action, arguments))

    def _run(self) -> None:
        while self._agenda and not self._is_over:
            self.now_s, _, action, arguments = heapq.heappop(self._agenda)
            action(*arguments)

    def _tell(self, event: Event) -> None:
        commands = self._scheduler.handle(event, self.now_s)
        self.events += 1
        for command in commands:
            carry_out = self._carry_out.get(type(command))
            if carry_out is not None:
                carry_out(command)
        if self._observer is not None:
            self._observer(self.now_s, event, commands)

    def _wake_at(self, command: WakeAt) -> None:
        self._wake_at_s = command.at_s
        self._at(max(command.at_s, self.now_s), self._fire_timer, command.at_s)

    def _fire_timer(self, at_s: float) -> None:
        if at_s == self._wake_at_s:  # else a later WakeAt has replaced it
            self._tell(TimerFired())

    # --- replicas -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        for replica in self._replicas.values():
            self._at(replica.model.compile_s, self._come_up, replica)
        for fault in self._around.faults:
            replica = self._replicas[fault.replica]
            if isinstance(fault, SlowDown):
                replica.speeds.append((fault.at_s, fault.factor))
                replica.speeds.sort()
            elif isinstance(fault, Death):
                self._at(fault.at_s, self._die, replica, "killed", fault.back_s)
            else:
                self._at(fault.at_s, self._drain, replica)

    def _come_up(self, replica: SimulatedReplica) -> None:
        replica.is_up = True
        self._tell(self._ready(replica))

    def _ready(self, replica: SimulatedReplica) -> ReplicaReady:
        model = replica.model
        prefetch = 1 + math.ceil(2.0 * self._around.round_trip_s * model.rows_per_s)
        return ReplicaReady(
            replica=model.id,
            device=model.device,
            request_window=model.nireq + prefetch,
            chunk_window=_CHUNK_WINDOW,
            nireq=model.nireq,
            # As a warm-up of a few inferences measures it.
            rate_rows_per_s=model.rows_per_s / max(0.5, self._chance.gauss(1.0, model.jitter / 2.0)),
        )

    def _die(self, replica: SimulatedReplica, reason: str, back_s: float) -> None:
        replica.die(self.now_s)
        self._unanswered[replica.model.id].clear()
        self._at(self.now_s + self._around.round_trip_s / 2, self._tell_lost, replica.model.id, reason)
        self._at(back_s, self._come_up, replica)

    def _tell_lost(self, replica_id: ReplicaId, reason: str) -> None:
        self._tell(ReplicaLost(replica=replica_id, reason=reason))

    def _drain(self, replica: SimulatedReplica) -> None:
        self._tell(ReplicaDraining(replica=replica.model.id))

    def _release(self, command: ReleaseReplica) -> None:
        self._replicas[command.replica].is_up = False

    def _probe(self, command: ProbeReplica) -> None:
        replica = self._replicas[command.replica]
        answer = (
            self._ready(replica) if replica.is_up else ReplicaLost(replica=command.replica, reason="no answer")
        )
        self._at(self.now_s + self._around.round_trip_s + replica.model.row_s, self._tell, answer)

    # --- messages -------------------------------------------------------------------------------------------

    def _send_chunk(self, command: SendChunk) -> None:
        item = Item(dispatch=command.dispatch, rows=command.stop - command.start, is_chunk=True)
        self._send(command.replica, [item])

    def _send_envelope(self, command: SendEnvelope) -> None:
        self._envelopes += 1
        self._sent_requests += len(command.requests)
        self._send(command.replica, [Item(dispatch=id, rows=1, is_chunk=False) for id, _ in command.requests])

    def _send(self, replica_id: ReplicaId, items: list[Item]) -> None:
        unanswered = self._unanswered[replica_id]
        if not unanswered:
            self._heard_s[replica_id] = self.now_s
        unanswered.update(dict.fromkeys(item.dispatch for item in items))
        if replica_id not in self._watched:
            self._watched.add(replica_id)
            self._at(self.now_s + self._around.give_up_after_s, self._look_after, replica_id)
        replica = self._replicas[replica_id]
        self._at(self.now_s + self._around.round_trip_s / 2, self._receive, replica, replica.life, items)

    def _receive(self, replica: SimulatedReplica, life: int, items: list[Item]) -> None:
        if replica.life == life and replica.is_up:
            replica.receive(items)
            self._start_next(replica)

    def _start_next(self, replica: SimulatedReplica) -> None:
        for item, end_s in replica.start_next(self.now_s):
            self._at(end_s, self._end, replica, replica.life, item)

    def _end(self, replica: SimulatedReplica, life: int, item: Item) -> None:
        if replica.life == life and replica.end(item.dispatch, self.now_s):
            self._reply(replica.model.id, item)
            self._start_next(replica)

    def _cancel(self, command: CancelDispatch) -> None:
        self._unanswered[command.replica].pop(command.dispatch, None)
        self._at(self.now_s + self._around.round_trip_s / 2, self._cancel_there, command)

    def _cancel_there(self, command: CancelDispatch) -> None:
        replica = self._replicas[command.replica]
        if replica.end(command.dispatch, self.now_s):
            self._start_next(replica)

    def _reply(self, replica_id: ReplicaId, item: Item) -> None:
        mishaps, draw = self._around.mishaps, self._chance.random
        back_s = self.now_s + self._around.round_trip_s / 2
        answer = self._answer(replica_id, item.dispatch)
        if draw() >= mishaps.lost_reply:
            late_s = mishaps.late_by_s * draw() if draw() < mishaps.late_reply else 0.0
            self._at(back_s + late_s, self._hear, answer)
        if draw() < mishaps.duplicated_reply:
            self._at(back_s + mishaps.late_by_s * draw(), self._hear, answer)

    def _answer(self, replica_id: ReplicaId, dispatch: DispatchId) -> Completed | Failed:
        lot = self._chance.random() - self._around.mishaps.device_failure
        if lot < 0.0:
            cause, message = FailureCause.DEVICE, "simulated failure of the device"
        elif lot < self._around.mishaps.input_failure:
            cause, message = FailureCause.INPUT, "simulated failure of the input"
        else:
            return Completed(replica=replica_id, dispatch=dispatch)
        return Failed(replica=replica_id, dispatch=dispatch, cause=cause, message=message)

    def _hear(self, answer: Completed | Failed) -> None:
        self._heard_s[answer.replica] = self.now_s
        self._heard_from = answer.replica
        self._unanswered[answer.replica].pop(answer.dispatch, None)
        self._tell(answer)

    def _look_after(self, replica_id: ReplicaId) -> None:
        """Give up a replica that has work and has been silent for too long."""
        if not self._unanswered[replica_id]:
            self._watched.discard(replica_id)
            return
        limit_s = self._heard_s[replica_id] + self._around.give_up_after_s
        if limit_s > self.now_s:
            self._at(limit_s, self._look_after, replica_id)
            return
        self._watched.discard(replica_id)
        self._die(self._replicas[replica_id], "given up: silent", self.now_s + self._around.restart_after_s)

    # --- ends -----------------------------------------------------------------------------------------------

    def _commit(self, command: CommitChunk) -> None:
        self._commits.append((command.start, command.stop))
        self._rows_of[command.replica] += command.stop - command.start

    def _finish(self, command: FinishJob) -> None:
        self._is_over = True

    def _fail(self, command: FailJob) -> None:
        self._is_over = True
        self._failure = command.message

    def _deliver_result(self, command: DeliverResult) -> None:
        self._end_request(command.request)
        self._rows_of[self._heard_from] += 1
        self._latencies_s.append(self.now_s - self._arrived_s[command.request])
        self._last_result_s = self.now_s

    def _deliver_error(self, command: DeliverError) -> None:
        self._end_request(command.request)
        self._errors += 1

    def _refuse(self, command: RefuseRequest) -> None:
        self._end_request(command.request)
        self._errors += 1

    def _end_request(self, request: RequestId) -> None:
        self._ended[request] = self._ended.get(request, 0) + 1

    def _replica_reports(self, until_s: float) -> tuple[ReplicaReport, ...]:
        return tuple(
            ReplicaReport(
                id=replica.model.id,
                rows=self._rows_of[replica.model.id],
                idle_share=max(0.0, 1.0 - replica.busy_s / until_s) if until_s else 1.0,
                tail_s=0.0 if replica.running else max(0.0, until_s - replica.last_end_s),
            )
            for replica in self._replicas.values()
        )


def _count_rows(commits: list[tuple[int, int]], rows: int) -> tuple[int, int]:
    """Return how many of ``rows`` were never committed, and how many more than once."""
    covered, duplicated, end = 0, 0, 0
    for start, stop in sorted(commits):
        duplicated += max(0, min(end, stop) - start)
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    return rows - covered, duplicated


def _percentile(ascending: list[float], percent: int) -> float:
    """Return the nearest-rank percentile, as benchmark_app counts it; 0 where there is nothing."""
    return ascending[math.ceil(len(ascending) * percent / 100) - 1] if ascending else 0.0
