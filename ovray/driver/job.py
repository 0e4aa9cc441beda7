"""Drives one job from its start to its end, in the caller's thread: the scheduler's commands become messages, the
replicas' messages become its events.

May not enter: decisions (core), Ray (transport.py), rows.  Nothing here waits without an end.
"""

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovray.core import commands, events
from ovray.core.ids import DispatchId, JobId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver import messages
from ovray.driver.transport import Inbox, Transport
from ovray.errors import CompileError, ConfigError, DataError, ReplicaError
from ovray.replica.actor import WORK_THREADS
from ovray.replica.workload import ReplicaReport

JOB = JobId(0)

#: How often the watcher is called, messages or not.
TICK_S = 0.25

#: A replica that takes longer to take its cores, read, compile and warm up is given up.
START_TIMEOUT_S = 900.0

#: A replica that holds work and has been silent for this long after the scheduler noticed is given up.
SILENCE_TIMEOUT_S = 120.0

#: What pieces that nobody needs any more get to answer before their processes are ended.
CANCEL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Names rows that are done, and what their replica said of them."""

    replica: ReplicaId
    start: int
    stop: int
    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Says how a job stands."""

    snapshot: Snapshot
    rows_total: int
    rows_done: int
    #: Since the first replica was ready; 0 before.
    running_s: float
    #: Replicas that have not said yet whether they can start.
    starting: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Says how a job ended that has all of its rows."""

    commits: tuple[Commit, ...]
    #: From the first replica's readiness to the last commit.
    run_s: float
    reports: Mapping[ReplicaId, ReplicaReport]
    #: Why replicas that were wanted did not take part, or left.
    failures: Mapping[ReplicaId, Exception]


class JobDriver:
    """Runs one job over replicas that it starts and ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        transport: Transport,
        inbox: Inbox,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._transport = transport
        self._inbox = inbox
        self._clock = clock
        self._specs: dict[ReplicaId, ReplicaSpec] = {}
        self._piece_of: Callable[[int, int], Any] = _no_piece
        #: Wanted and not yet heard of, with the time at which they are given up.
        self._starting: dict[ReplicaId, float] = {}
        self._reports: dict[ReplicaId, ReplicaReport] = {}
        self._failures: dict[ReplicaId, Exception] = {}
        #: Sent and not answered.
        self._in_flight: dict[DispatchId, ReplicaId] = {}
        self._results: dict[DispatchId, Any] = {}
        self._commits: list[Commit] = []
        self._silent_since_s: dict[ReplicaId, float] = {}
        self._wake_at_s: float | None = None
        self._first_ready_s: float | None = None
        self._last_commit_s = 0.0
        self._ended: commands.FinishJob | commands.FailJob | None = None

    def run(
        self,
        replicas: Sequence[tuple[ReplicaSpec, Mapping[str, str]]],
        job: events.JobSubmitted,
        piece_of: Callable[[int, int], Any],
        watch: Callable[[Progress], None],
    ) -> Outcome:
        """Starts replicas, has every row of a job done, and ends the replicas.

        Args:
            replicas: what to start, each with its OpenVINO properties.
            job: its number must be ``JOB``.
            piece_of: makes what a replica needs to do rows ``start`` up to, not including, ``stop``.
            watch: is told how things stand, several times a second.

        Raises:
            DataError: rows could not be read, prepared or written; the message names them.
            ReplicaError: no replica is left, or none could start.
            ConfigError: no device could compile the model.
        """
        self._piece_of = piece_of
        rows_total = sum(stop - start for start, stop in job.ranges)
        try:
            for spec, properties in replicas:
                self._specs[spec.id] = spec
                self._starting[spec.id] = self._clock() + START_TIMEOUT_S
                self._transport.start(spec, properties)
            self._feed(job)
            while self._ended is None:
                self._step()
                watch(self._progress(rows_total))
            self._settle()
        finally:
            self._transport.close()
        if isinstance(self._ended, commands.FailJob):
            raise DataError(self._ended.message)
        run_s = self._last_commit_s - self._first_ready_s if self._first_ready_s is not None else 0.0
        return Outcome(commits=tuple(self._commits), run_s=run_s, reports=self._reports, failures=self._failures)

    def _step(self) -> None:
        now_s = self._clock()
        wake_in_s = TICK_S if self._wake_at_s is None else min(TICK_S, max(0.0, self._wake_at_s - now_s))
        try:
            self._take(self._inbox.get(timeout=wake_in_s))
        except queue.Empty:
            self._give_up_on_the_silent()
        if self._wake_at_s is not None and self._clock() >= self._wake_at_s:
            self._wake_at_s = None
            self._feed(events.TimerFired())
        self._check_that_somebody_is_left()

    def _settle(self) -> None:
        """Lets pieces that nobody needs any more come to their end, so that they leave nothing behind."""
        end_s = self._clock() + CANCEL_TIMEOUT_S
        while self._in_flight and self._clock() < end_s:
            try:
                self._take(self._inbox.get(timeout=TICK_S))
            except queue.Empty:
                continue

    # --- messages become events -----------------------------------------------------------------------------

    def _take(self, message: messages.Message) -> None:
        match message:
            case messages.Started():
                self._take_start(message)
            case messages.StartFailed():
                self._give_up(message.replica, message.error)
            case messages.Answered():
                self._in_flight.pop(message.dispatch, None)
                self._results[message.dispatch] = message.result
                self._feed(events.Completed(replica=message.replica, dispatch=message.dispatch))
                self._results.pop(message.dispatch, None)
            case messages.Refused():
                self._in_flight.pop(message.dispatch, None)
                is_input = isinstance(message.error, DataError)
                cause = events.FailureCause.INPUT if is_input else events.FailureCause.DEVICE
                text = str(message.error) if is_input else f"{message.replica}: {message.error}"
                self._feed(
                    events.Failed(replica=message.replica, dispatch=message.dispatch, cause=cause, message=text)
                )
            case messages.ProbePassed():
                self._feed(self._ready(message.replica))
            case messages.ProbeRefused():
                self._feed(events.ProbeFailed(replica=message.replica, message=str(message.error)))
            case messages.Gone():
                self._lose(message.replica, message.reason)

    def _take_start(self, message: messages.Started) -> None:
        if self._starting.pop(message.replica, None) is None:
            return  # given up meanwhile
        self._reports[message.replica] = message.report
        if self._first_ready_s is None:
            self._first_ready_s = self._clock()
        self._feed(self._ready(message.replica))

    def _ready(self, replica: ReplicaId) -> events.ReplicaReady:
        spec, engine = self._specs[replica], self._reports[replica].engine
        return events.ReplicaReady(
            replica=replica,
            device=f"{spec.host}/{spec.device}",
            request_window=engine.nireq,
            chunk_window=WORK_THREADS,
            nireq=engine.nireq,
            rate_rows_per_s=engine.rate_rows_per_s,
        )

    def _give_up(self, replica: ReplicaId, error: Exception) -> None:
        if self._starting.pop(replica, None) is not None:
            self._failures[replica] = error
            self._transport.stop(replica)

    def _lose(self, replica: ReplicaId, reason: str) -> None:
        for dispatch in [dispatch for dispatch, holder in self._in_flight.items() if holder == replica]:
            del self._in_flight[dispatch]
        if replica not in self._failures:
            self._failures[replica] = ReplicaError(reason)
            self._transport.stop(replica)
            self._feed(events.ReplicaLost(replica=replica, reason=reason))

    def _give_up_on_the_silent(self) -> None:
        now_s = self._clock()
        for replica, end_s in list(self._starting.items()):
            if now_s > end_s:
                self._give_up(replica, ReplicaError(f"was not ready after {START_TIMEOUT_S:g} s"))
        for standing in self._scheduler.snapshot().replicas:
            if not standing.is_stalled:
                self._silent_since_s.pop(standing.id, None)
            elif now_s - self._silent_since_s.setdefault(standing.id, now_s) > SILENCE_TIMEOUT_S:
                self._lose(standing.id, f"held work and was silent for {SILENCE_TIMEOUT_S:g} s")

    def _check_that_somebody_is_left(self) -> None:
        if self._ended is not None or self._starting or self._scheduler.snapshot().has_live_replica:
            return
        reasons = "; ".join(f"{replica}: {error}" for replica, error in self._failures.items())
        if all(isinstance(error, CompileError) for error in self._failures.values()):
            raise ConfigError(f"no device can run the model: {reasons}")
        raise ReplicaError(f"no replica is left: {reasons}")

    # --- commands become messages ---------------------------------------------------------------------------

    def _feed(self, event: events.Event) -> None:
        for command in self._scheduler.handle(event, self._clock()):
            self._carry_out(command)

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.SendChunk():
                self._in_flight[command.dispatch] = command.replica
                piece = self._piece_of(command.start, command.stop)
                self._transport.send(command.replica, command.dispatch, command.job, piece)
            case commands.CommitChunk():
                self._last_commit_s = self._clock()
                self._commits.append(
                    Commit(
                        replica=command.replica,
                        start=command.start,
                        stop=command.stop,
                        result=self._results[command.dispatch],
                    )
                )
            case commands.CancelDispatch():
                self._transport.cancel(command.replica, command.dispatch)
            case commands.ProbeReplica():
                self._transport.probe(command.replica)
            case commands.ReleaseReplica():
                self._transport.stop(command.replica)
            case commands.WakeAt():
                self._wake_at_s = command.at_s
            case commands.FinishJob() | commands.FailJob():
                self._ended = command
            case _:
                raise AssertionError(f"a job of chunks needs no {command!r}")

    def _progress(self, rows_total: int) -> Progress:
        running_s = self._clock() - self._first_ready_s if self._first_ready_s is not None else 0.0
        return Progress(
            snapshot=self._scheduler.snapshot(),
            rows_total=rows_total,
            rows_done=sum(commit.stop - commit.start for commit in self._commits),
            running_s=running_s,
            starting=tuple(self._starting),
        )


def _no_piece(start: int, stop: int) -> Any:
    raise AssertionError(f"rows {start} to {stop} before run()")
