"""Drives one job from its start to its end, in one thread: the scheduler's commands become messages, the replicas'
messages become its events.

May not enter: decisions (core), Ray (transport.py), rows.  Nothing here waits without an end.
"""

import contextlib
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ovray.core import commands, events
from ovray.core.ids import DispatchId, JobId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver import messages
from ovray.driver.interrupts import DRAIN_TIMEOUT_S, Interrupts
from ovray.driver.lifecycle import ReplicaSet, Upkeep
from ovray.driver.messages import ReplicaStart
from ovray.driver.transport import Inbox, Transport
from ovray.errors import DataError
from ovray.replica.workload import ReplicaReport

JOB = JobId(0)

#: By which replicas know the work that all rows of a job have in common.
WORK = 0

#: How often the watcher is called and replicas are looked after, messages or not.
TICK_S = 0.25

#: Is shown each event, when it was told to the scheduler, and the commands that came of it.
Observer = Callable[[float, events.Event, Sequence[commands.Command]], None]

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
    #: Replicas that could not start, or were lost, and why.
    failures: Mapping[ReplicaId, Exception] = field(default_factory=dict)
    #: Rows that were put aside because they cannot be scored.
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Says how a job ended that has all of its rows."""

    commits: tuple[Commit, ...]
    #: From the first replica's readiness to the last commit.
    run_s: float
    #: Every replica that was started, those that joined later included.
    specs: tuple[ReplicaSpec, ...]
    reports: Mapping[ReplicaId, ReplicaReport]
    #: Why replicas that were wanted did not take part, or left.
    failures: Mapping[ReplicaId, Exception]


def _unobserved(now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
    """Looks away."""


class JobRows(Protocol):
    """Knows what the rows of a job are: the driver only counts them."""

    def piece(self, start: int, stop: int, verdict: str | None) -> Any:
        """Makes what a replica needs to do rows ``start`` up to, not including, ``stop``.

        Args:
            start: the first row.
            stop: the row behind the last.
            verdict: why they are not to be run any more but to be put on record; ``None`` for rows to be done.
        """
        ...

    def name(self, start: int, stop: int) -> str:
        """Says where rows come from, for people."""
        ...

    def count(self, commit: Commit, results: Any) -> None:
        """Is told of each commit, and where its results are; what it raises ends the job.

        Args:
            commit: names rows that were in none before.
            results: an object reference; ``None`` where the replica put them away.
        """
        ...


@dataclass(frozen=True, slots=True)
class Nudged:
    """Is left in the inbox by other threads: there may be more rows to score, or room for more results."""


class Supply(Protocol):
    """Says which rows may be scored now: those that there are, and for whose results there is room.

    Each portion is a job to the scheduler; it has several at once, and does them in the order in which they came.
    """

    def take(self) -> events.JobSubmitted | None:
        """Returns the next portion, with a number of its own; ``None`` while there is none.  Does not wait."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Says whether there will be no more."""
        ...


class AllAtOnce:
    """Is ``Supply`` of rows that are all there, whose results take no room."""

    def __init__(self, job: events.JobSubmitted) -> None:
        self._left: events.JobSubmitted | None = job

    def take(self) -> events.JobSubmitted | None:
        job, self._left = self._left, None
        return job

    @property
    def is_exhausted(self) -> bool:
        return self._left is None


class JobDriver:
    """Runs one job over replicas that it starts and ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        transport: Transport,
        inbox: Inbox,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = _unobserved,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._transport = transport
        self._inbox = inbox
        self._clock = clock
        #: May be set until the job runs.
        self.observer = observer
        self.replicas = ReplicaSet(transport, clock, upkeep)
        #: Sent and not answered.
        self._in_flight: dict[DispatchId, ReplicaId] = {}
        self._answers: dict[DispatchId, messages.Answered] = {}
        self._commits: list[Commit] = []
        self._wake_at_s: float | None = None
        #: When to look around next, however many messages come.
        self._look_at_s = 0.0
        self._rows_done = 0
        self._last_commit_s = 0.0
        #: Set at the first Ctrl-C.
        self._is_draining = False
        #: Portions of the supply that are not finished.
        self._open: set[JobId] = set()
        self._rows_supplied = 0
        self._failed: commands.FailJob | None = None

    def run(
        self,
        replicas: Iterable[ReplicaStart],
        supply: Supply,
        rows: JobRows,
        watch: Callable[[Progress], None],
    ) -> Outcome:
        """Starts replicas, has every row of a job done, and ends the replicas.

        Args:
            replicas: what to start.
            supply: which rows, and when; what it raises ends the job.  ``Nudged`` in the inbox has it asked.
            rows: what the job is about.
            watch: is told how things stand, several times a second.

        Raises:
            DataError: rows could not be read, prepared or written; the message names them.
            ReplicaError: no replica is left, or none could start.
            ConfigError: no device could compile the model.
            KeyboardInterrupt: Ctrl-C; the first lets replicas complete what they hold, the second does not.
        """
        self._supply, self._rows = supply, rows
        try:
            self.replicas.start(replicas)
            self._submit()
            with Interrupts() as interrupts:
                while not self._is_over and not interrupts.is_asked:
                    self._hear()
                    self._submit()
                    if self._clock() >= self._look_at_s:
                        self._look_at_s = self._clock() + TICK_S
                        watch(self._look_around())
                if interrupts.is_asked:
                    self._drain(lambda: watch(self._progress(self._scheduler.snapshot())))
            watch(self._progress(self._scheduler.snapshot()))
            self._settle()
        finally:
            self.replicas.close()
            self._transport.close()
        if self._failed is not None:
            raise DataError(_told(self._failed, rows))
        if not self._is_over:
            raise KeyboardInterrupt
        began_s = self.replicas.first_ready_s
        return Outcome(
            commits=tuple(self._commits),
            run_s=0.0 if began_s is None else self._last_commit_s - began_s,
            specs=self.replicas.specs,
            reports=self.replicas.reports,
            failures=self.replicas.failures,
        )

    @property
    def _is_over(self) -> bool:
        return self._failed is not None or (not self._open and self._supply.is_exhausted)

    def _submit(self) -> None:
        """Passes on rows that may be scored now."""
        while (job := self._supply.take()) is not None:
            self._open.add(job.job)
            self._rows_supplied += sum(stop - start for start, stop in job.ranges)
            self._feed(job)

    def _hear(self) -> None:
        """Takes in the next message, or the passing of time."""
        now_s = self._clock()
        wake_in_s = TICK_S if self._wake_at_s is None else min(TICK_S, max(0.0, self._wake_at_s - now_s))
        with contextlib.suppress(queue.Empty):
            self._take(self._inbox.get(timeout=wake_in_s))
        if self._wake_at_s is not None and self._clock() >= self._wake_at_s:
            self._wake_at_s = None
            self._feed(events.TimerFired())

    def _drain(self, watch: Callable[[], None]) -> None:
        """Has replicas complete what they hold, and gives them nothing more."""
        end_s = self._clock() + DRAIN_TIMEOUT_S
        self._is_draining = True
        for replica in self._scheduler.snapshot().replicas:
            self._feed(events.ReplicaDraining(replica=replica.id))
        while self._awaits_answers() and not self._is_over and self._clock() < end_s:
            self._hear()
            watch()

    def _look_around(self) -> Progress:
        """Looks after the replicas, sees that somebody is left, and says how things stand.

        A snapshot looks at every replica, so it is taken now and then and not at each message.
        """
        self._feed_life(self.replicas.look_after(self._scheduler.snapshot()))
        snapshot = self._scheduler.snapshot()
        error = None if self._is_over else self.replicas.error_if_none_is_left(snapshot)
        if error is not None:
            raise error
        return self._progress(snapshot)

    def _settle(self) -> None:
        """Lets pieces that nobody needs any more come to their end, so that they leave nothing behind."""
        end_s = self._clock() + CANCEL_TIMEOUT_S
        while self._awaits_answers() and self._clock() < end_s:
            self._hear()

    def _awaits_answers(self) -> bool:
        """Says whether somebody who can be heard has still to answer."""
        silent = {replica.id for replica in self._scheduler.snapshot().replicas if replica.is_stalled}
        return any(replica not in silent for replica in self._in_flight.values())

    # --- messages become events -----------------------------------------------------------------------------

    def _take(self, message: messages.Message | Nudged) -> None:
        match message:
            case messages.Answered():
                self._in_flight.pop(message.dispatch, None)
                self._answers[message.dispatch] = message
                self._feed(events.Completed(replica=message.replica, dispatch=message.dispatch))
                self._answers.pop(message.dispatch, None)
            case messages.Refused():
                self._in_flight.pop(message.dispatch, None)
                is_input = isinstance(message.error, DataError)
                cause = events.FailureCause.INPUT if is_input else events.FailureCause.DEVICE
                text = str(message.error) if is_input else f"{message.replica}: {message.error}"
                self._feed(
                    events.Failed(replica=message.replica, dispatch=message.dispatch, cause=cause, message=text)
                )
            case messages.Replied():
                raise AssertionError(f"chunks are answered one by one, not by {message!r}")
            case Nudged():
                pass  # the supply is asked after every message
            case messages.Started() if self._is_draining:
                pass  # it would be given work
            case _:
                self._feed_life(self.replicas.take(message))

    def _feed_life(self, heard: Sequence[events.Event]) -> None:
        for event in heard:
            if isinstance(event, events.ReplicaLost):
                self._in_flight = {
                    dispatch: holder for dispatch, holder in self._in_flight.items() if holder != event.replica
                }
            self._feed(event)

    # --- commands become messages ---------------------------------------------------------------------------

    def _feed(self, event: events.Event) -> None:
        now_s = self._clock()
        came_of_it = self._scheduler.handle(event, now_s)
        self.observer(now_s, event, came_of_it)
        for command in came_of_it:
            self._carry_out(command)

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.SendChunk():
                self._in_flight[command.dispatch] = command.replica
                piece = self._rows.piece(command.start, command.stop, command.verdict)
                self._transport.send(command.replica, command.dispatch, WORK, piece)
            case commands.CommitChunk():
                self._last_commit_s = self._clock()
                self._rows_done += command.stop - command.start
                answer = self._answers[command.dispatch]
                commit = Commit(
                    replica=command.replica,
                    start=command.start,
                    stop=command.stop,
                    result=answer.result,
                )
                self._commits.append(commit)
                self._rows.count(commit, answer.rows)
            case commands.CancelDispatch():
                self._transport.cancel(command.replica, command.dispatch)
            case commands.ProbeReplica():
                self._transport.probe(command.replica)
            case commands.ReleaseReplica():
                self.replicas.released(command.replica)
            case commands.WakeAt():
                self._wake_at_s = command.at_s
            case commands.FinishJob():
                self._open.discard(command.job)
            case commands.FailJob():
                self._failed = command
            case _:
                raise AssertionError(f"a job of chunks needs no {command!r}")

    def _progress(self, snapshot: Snapshot) -> Progress:
        began_s = self.replicas.first_ready_s
        return Progress(
            snapshot=snapshot,
            rows_total=self._rows_supplied,
            rows_done=self._rows_done,
            running_s=0.0 if began_s is None else self._clock() - began_s,
            starting=self.replicas.starting,
            failures=dict(self.replicas.failures),
        )


def _told(failure: commands.FailJob, rows: JobRows) -> str:
    """Says which rows a failure was about, where the message does not."""
    if failure.cause is events.FailureCause.INPUT or failure.start is None or failure.stop is None:
        return failure.message
    return f"{rows.name(failure.start, failure.stop)}: {failure.message}"
