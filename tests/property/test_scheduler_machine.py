"""Random interleavings of every event, against a model that only counts: what was sent, and what has ended.

The driver of this machine is as bad as a driver can be: answers are lost, late, doubled, or of replicas long dead.
"""

import math
import random
import re

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ovray.core.commands import (
    AcceptRequest,
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
    JobCancelled,
    JobSubmitted,
    PrioritiesChanged,
    ProbeFailed,
    ReplicaDraining,
    ReplicaLost,
    ReplicaReady,
    RequestCancelled,
    RequestSubmitted,
    TimerFired,
    WhenFull,
)
from ovray.core.ids import DispatchId, JobId, ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.policies import SchedulePolicy
from ovray.core.scheduler import Scheduler
from ovray.core.settings import SchedulerSettings

NAMES = st.sampled_from(["a", "b", "c", "d"])
DEVICES = {"a": "fast", "b": "fast", "c": "slow", "d": "slow"}
PINS = st.sampled_from([None, None, None, "a", "d", "fast", "slow"])


class SchedulerMachine(RuleBasedStateMachine):
    """Sends any event at any time and believes no command."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.wake_at_s = math.inf
        #: What each live replica holds, and its windows, as the commands said.
        self.held: dict[ReplicaId, dict[DispatchId, str]] = {}
        self.windows: dict[ReplicaId, tuple[int, int]] = {}
        self.may_get_work: set[ReplicaId] = set()
        #: Every dispatch ever made, for late and doubled answers.
        self.all_sent: list[tuple[ReplicaId, DispatchId]] = []
        self.probed: set[ReplicaId] = set()
        self.open_requests: set[RequestId] = set()
        self.accepted: set[RequestId] = set()
        self.request_of: dict[DispatchId, RequestId] = {}
        self.open_jobs: dict[JobId, set[int]] = {}
        self.chunk_of: dict[DispatchId, tuple[JobId, int, int]] = {}
        #: What the jobs are cut at.
        self.multiples: dict[JobId, int | None] = {}
        self.number = 0

    @initialize(policy=st.sampled_from(SchedulePolicy), bound=st.integers(1, 6), seed=st.integers(0, 99))
    def start(self, policy: SchedulePolicy, bound: int, seed: int) -> None:
        numbers = SchedulerSettings(max_waiting_requests=bound, readmit_after_s=0.5, forgiven_after_completions=3)
        self.scheduler = Scheduler(policy, random.Random(seed), numbers)

    # --- events ---------------------------------------------------------------------------------------------

    @rule(
        name=NAMES,
        nireq=st.integers(1, 3),
        prefetch=st.integers(0, 4),
        chunk_window=st.integers(1, 3),
        rate=st.sampled_from([None, 1.0, 10.0, 500.0]),
    )
    def replica_ready(self, name: str, nireq: int, prefetch: int, chunk_window: int, rate: float | None) -> None:
        replica = ReplicaId(name)
        was_known = {shot.id: shot.state for shot in self.scheduler.snapshot().replicas}.get(replica)
        if was_known in (None, ReplicaState.LOST):
            self.windows[replica] = (nireq + prefetch, chunk_window)
            self.held[replica] = {}
        if was_known in (None, ReplicaState.LOST, ReplicaState.PROBING):
            self.may_get_work.add(replica)
        self.tell(
            ReplicaReady(
                replica=replica,
                device=DEVICES[name],
                request_window=nireq + prefetch,
                chunk_window=chunk_window,
                nireq=nireq,
                rate_rows_per_s=rate,
            )
        )

    @rule(name=NAMES)
    def replica_draining(self, name: str) -> None:
        self.may_get_work.discard(ReplicaId(name))
        self.tell(ReplicaDraining(replica=ReplicaId(name)))

    @rule(name=NAMES)
    def replica_lost(self, name: str) -> None:
        self.may_get_work.discard(ReplicaId(name))
        self.held.get(ReplicaId(name), {}).clear()
        self.tell(ReplicaLost(replica=ReplicaId(name), reason="killed"))

    @rule(name=NAMES)
    def probe_failed(self, name: str) -> None:
        self.tell(ProbeFailed(replica=ReplicaId(name), message="still hot"))

    @rule(
        rows=st.integers(1, 8),
        priority=st.integers(-1, 1),
        patience_s=st.sampled_from([math.inf, math.inf, 0.0, 1.0]),
        pin=PINS,
        when_full=st.sampled_from(WhenFull),
    )
    def request_submitted(
        self, rows: int, priority: int, patience_s: float, pin: str | None, when_full: WhenFull
    ) -> None:
        self.number += 1
        request = RequestId(self.number)
        self.open_requests.add(request)
        self.tell(
            RequestSubmitted(
                request=request,
                rows=rows,
                priority=priority,
                deadline_s=self.now_s + patience_s,
                pinned_to=pin,
                when_full=when_full,
            )
        )

    @rule(back=st.integers(0, 12))
    def request_cancelled(self, back: int) -> None:
        self.tell(RequestCancelled(request=RequestId(self.number - back)))

    @rule(
        lengths=st.lists(st.integers(0, 40), max_size=3),
        gap=st.integers(0, 5),
        cheap_cuts=st.lists(st.integers(0, 100), max_size=4).map(lambda cuts: tuple(sorted(cuts))),
        multiple=st.sampled_from([None, None, 1, 7]),
        min_chunk_rows=st.integers(1, 9),
        max_backups=st.integers(0, 2),
    )
    def job_submitted(
        self,
        lengths: list[int],
        gap: int,
        cheap_cuts: tuple[int, ...],
        multiple: int | None,
        min_chunk_rows: int,
        max_backups: int,
    ) -> None:
        self.number += 1
        ranges, start = [], gap
        for length in lengths:
            ranges.append((start, start + length))
            start += length + gap
        job = JobId(self.number)
        self.multiples[job] = multiple
        self.open_jobs[job] = {row for first, stop in ranges for row in range(first, stop)}
        self.tell(
            JobSubmitted(
                job=job,
                ranges=tuple(ranges),
                cheap_cuts=cheap_cuts,
                cut_multiple=multiple,
                min_chunk_rows=min_chunk_rows,
                max_backups=max_backups,
            )
        )

    @rule(back=st.integers(0, 12))
    def job_cancelled(self, back: int) -> None:
        self.tell(JobCancelled(job=JobId(self.number - back)))

    @precondition(lambda self: self.all_sent)
    @rule(back=st.integers(0, 9), after_s=st.sampled_from([0.0, 0.001, 0.1, 1.0, 30.0]))
    def completed(self, back: int, after_s: float) -> None:
        """The answer of a dispatch, open or not: the latest ones are the likeliest to be open."""
        replica, dispatch = self.all_sent[-1 - min(back, len(self.all_sent) - 1)]
        self.now_s += after_s
        self.tell(Completed(replica=replica, dispatch=dispatch))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), after_s=st.sampled_from([0.01, 0.2, 2.0]))
    def open_dispatch_completed(self, data: st.DataObject, after_s: float) -> None:
        replica = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        dispatch = data.draw(st.sampled_from(sorted(self.held[replica])))
        self.now_s += after_s
        self.tell(Completed(replica=replica, dispatch=dispatch))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), cause=st.sampled_from(FailureCause))
    def failed(self, data: st.DataObject, cause: FailureCause) -> None:
        replica = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        dispatch = data.draw(st.sampled_from(sorted(self.held[replica])))
        self.held[replica].pop(dispatch)
        self.tell(Failed(replica=replica, dispatch=dispatch, cause=cause, message="simulated"))

    @rule(devices=st.sampled_from([("fast", "slow"), ("slow", "fast"), ("slow",), ("fast",)]))
    def priorities_changed(self, devices: tuple[str, ...]) -> None:
        self.tell(PrioritiesChanged(devices=devices))

    @rule()
    def timer_fired_on_time(self) -> None:
        if self.wake_at_s < math.inf:
            self.now_s = max(self.now_s, self.wake_at_s)
        self.tell(TimerFired())

    @rule(after_s=st.sampled_from([0.0, 0.5, 5.0, 100.0]))
    def timer_fired_at_any_time(self, after_s: float) -> None:
        self.now_s += after_s
        self.tell(TimerFired())

    # --- what the commands do to the model ------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        note(f"{self.now_s} {event}")
        if isinstance(event, TimerFired):
            self.wake_at_s = math.inf
        if isinstance(event, Completed | Failed):
            for held in self.held.values():
                held.pop(event.dispatch, None)
        for command in self.scheduler.handle(event, self.now_s):
            note(f"    {command}")
            self.obey(command)
        self.scheduler.check_invariants()

    def obey(self, command: Command) -> None:
        name = "obey_" + re.sub(r"(?<!^)(?=[A-Z])", "_", type(command).__name__).lower()
        getattr(self, name)(command)

    def obey_send_envelope(self, command: SendEnvelope) -> None:
        for dispatch, request in command.requests:
            assert request in self.open_requests & self.accepted, "sent, but ended or not accepted"
            self.request_of[dispatch] = request
            self.send(command.replica, dispatch, "request")

    def obey_send_chunk(self, command: SendChunk) -> None:
        assert command.job in self.open_jobs
        assert command.start < command.stop
        multiple = self.multiples[command.job]
        assert multiple is None or command.start // multiple == (command.stop - 1) // multiple
        self.chunk_of[command.dispatch] = (command.job, command.start, command.stop)
        self.send(command.replica, command.dispatch, "chunk")

    def obey_cancel_dispatch(self, command: CancelDispatch) -> None:
        self.held.get(command.replica, {}).pop(command.dispatch, None)

    def obey_accept_request(self, command: AcceptRequest) -> None:
        assert command.request not in self.accepted, "accepted twice"
        self.accepted.add(command.request)

    def obey_deliver_result(self, command: DeliverResult) -> None:
        assert self.request_of[command.dispatch] == command.request
        self.open_requests.remove(command.request)

    def obey_deliver_error(self, command: DeliverError) -> None:
        self.open_requests.remove(command.request)

    def obey_refuse_request(self, command: RefuseRequest) -> None:
        self.open_requests.remove(command.request)

    def obey_commit_chunk(self, command: CommitChunk) -> None:
        rows = set(range(command.start, command.stop))
        assert self.chunk_of[command.dispatch] == (command.job, command.start, command.stop)
        assert rows <= self.open_jobs[command.job], "committed twice, or never asked for"
        self.open_jobs[command.job] -= rows

    def obey_finish_job(self, command: FinishJob) -> None:
        assert self.open_jobs.pop(command.job) == set(), "finished with rows left"

    def obey_fail_job(self, command: FailJob) -> None:
        del self.open_jobs[command.job]

    def obey_probe_replica(self, command: ProbeReplica) -> None:
        self.probed.add(command.replica)

    def obey_release_replica(self, command: ReleaseReplica) -> None:
        assert not self.held.pop(command.replica), "released with work"

    def obey_wake_at(self, command: WakeAt) -> None:
        self.wake_at_s = command.at_s

    def send(self, replica: ReplicaId, dispatch: DispatchId, kind: str) -> None:
        assert replica in self.may_get_work, "work for a replica that is lost or draining"
        assert (replica, dispatch) not in self.all_sent
        self.all_sent.append((replica, dispatch))
        held = self.held[replica]
        held[dispatch] = kind
        requests = sum(kind == "request" for kind in held.values())
        request_window, chunk_window = self.windows[replica]
        assert requests <= request_window
        assert len(held) - requests <= chunk_window

    @invariant()
    def held_work_is_what_the_scheduler_thinks(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for shot in self.scheduler.snapshot().replicas:
            held = self.held[shot.id]
            assert shot.requests_outstanding + shot.chunks_outstanding == len(held)

    def teardown(self) -> None:
        """Let a good replica do what is left: then nothing must be left."""
        if not hasattr(self, "scheduler"):
            return
        self.priorities_changed(("fast", "slow", "new"))
        for request in list(self.open_requests):
            if request not in self.accepted or not any(request == sent for sent in self.request_of.values()):
                # It may be pinned to a replica that never comes back.
                self.tell(RequestCancelled(request=request))
        for name in "abcd":
            self.replica_lost(name)
        # Under these names, since requests may be pinned to them.
        for name in "abcd":
            self.replica_ready(name, 2, 1, 2, 100.0)
        for _ in range(2000):
            if not self.open_requests and not self.open_jobs:
                break
            replica = next((name for name, held in self.held.items() if held), None)
            if replica is None:
                assert self.wake_at_s < math.inf, "work waits, nobody works, and nobody will be woken"
                self.timer_fired_on_time()
                self.answer_probes()
            else:
                self.now_s += 0.05
                self.tell(Completed(replica=replica, dispatch=next(iter(self.held[replica]))))
        assert not self.open_requests
        assert not self.open_jobs

    def answer_probes(self) -> None:
        for replica in self.probed:
            self.replica_ready(str(replica), 2, 1, 2, 100.0)
        self.probed.clear()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
