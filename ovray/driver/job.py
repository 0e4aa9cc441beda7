"""Drives one job from its start to its end, in one thread: the scheduler's commands become messages, the replicas'
messages become its events.

May not enter: decisions (core), Ray (transport.py), rows.  Nothing here waits without an end.
"""

import contextlib
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ovray.core import commands, events
from ovray.core.ids import DispatchId, JobId, ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.snapshot import Snapshot
from ovray.driver import messages
from ovray.driver.lifecycle import ReplicaSet, ReplicaStart
from ovray.driver.transport import Inbox, Transport
from ovray.errors import DataError
from ovray.replica.workload import ReplicaReport

JOB = JobId(0)

#: By which replicas know the work that all rows of a job have in common.
WORK = 0

#: How often the watcher is called and silent replicas are looked for, messages or not.
TICK_S = 0.25

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


#: Is given rows ``start`` up to, not including, ``stop`` that are done, and where their results are.
Deliver = Callable[[int, int, Any], None]


def nowhere(start: int, stop: int, rows: Any) -> None:
    """Is ``Deliver`` where replicas put results away by themselves."""


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
        self._replicas = ReplicaSet(transport, clock)
        self._supply: Supply = AllAtOnce(events.JobSubmitted(job=JOB, ranges=()))
        self._piece_of: Callable[[int, int], Any] = _no_piece
        self._deliver: Deliver = nowhere
        #: Sent and not answered.
        self._in_flight: dict[DispatchId, ReplicaId] = {}
        self._answers: dict[DispatchId, messages.Answered] = {}
        self._commits: list[Commit] = []
        self._wake_at_s: float | None = None
        #: When to look next for replicas that say nothing, however many others talk.
        self._look_at_s = 0.0
        self._last_commit_s = 0.0
        #: Portions of the supply that are not finished.
        self._open: set[JobId] = set()
        self._rows_supplied = 0
        self._rows_done = 0
        self._failed: commands.FailJob | None = None

    def run(
        self,
        replicas: Sequence[ReplicaStart],
        supply: Supply,
        piece_of: Callable[[int, int], Any],
        deliver: Deliver,
        watch: Callable[[Progress], None],
    ) -> Outcome:
        """Starts replicas, has every row of a job done, and ends the replicas.

        Args:
            replicas: what to start.
            supply: the rows; what it raises ends the job.  ``Nudged`` in the inbox has it asked at once.
            piece_of: makes what a replica needs to do rows ``start`` up to, not including, ``stop``.
            deliver: is given each range of rows once, in the order in which they are done.
            watch: is told how things stand, several times a second.

        Raises:
            DataError: rows could not be read, prepared or written; the message names them.
            ReplicaError: no replica is left, or none could start.
            ConfigError: no device could compile the model.
        """
        self._supply, self._piece_of, self._deliver = supply, piece_of, deliver
        try:
            self._replicas.start(replicas)
            self._submit()
            while not self._is_over:
                self._step()
                watch(self._progress())
            self._settle()
        finally:
            self._transport.close()
        if self._failed is not None:
            raise DataError(self._failed.message)
        began_s = self._replicas.first_ready_s
        return Outcome(
            commits=tuple(self._commits),
            run_s=0.0 if began_s is None else self._last_commit_s - began_s,
            reports=self._replicas.reports,
            failures=self._replicas.failures,
        )

    @property
    def _is_over(self) -> bool:
        return self._failed is not None or (not self._open and self._supply.is_exhausted)

    def _submit(self) -> None:
        while (job := self._supply.take()) is not None:
            self._open.add(job.job)
            self._rows_supplied += sum(stop - start for start, stop in job.ranges)
            self._feed(job)

    def _step(self) -> None:
        now_s = self._clock()
        wake_in_s = TICK_S if self._wake_at_s is None else min(TICK_S, max(0.0, self._wake_at_s - now_s))
        with contextlib.suppress(queue.Empty):
            self._take(self._inbox.get(timeout=wake_in_s))
        if self._clock() >= self._look_at_s:
            self._look_at_s = self._clock() + TICK_S
            self._feed_life(self._replicas.look_for_the_silent(self._scheduler.snapshot()))
        if self._wake_at_s is not None and self._clock() >= self._wake_at_s:
            self._wake_at_s = None
            self._feed(events.TimerFired())
        self._submit()
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
            case Nudged():
                pass  # the supply is asked after every message
            case messages.Replied():
                raise AssertionError(f"chunks are answered one by one, not by {message!r}")
            case _:
                self._feed_life(self._replicas.take(message))

    def _feed_life(self, heard: Sequence[events.Event]) -> None:
        for event in heard:
            if isinstance(event, events.ReplicaLost):
                self._in_flight = {
                    dispatch: holder for dispatch, holder in self._in_flight.items() if holder != event.replica
                }
            self._feed(event)

    def _check_that_somebody_is_left(self) -> None:
        error = None if self._is_over else self._replicas.error_if_none_is_left(self._scheduler.snapshot())
        if error is not None:
            raise error

    # --- commands become messages ---------------------------------------------------------------------------

    def _feed(self, event: events.Event) -> None:
        for command in self._scheduler.handle(event, self._clock()):
            self._carry_out(command)

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.SendChunk():
                self._in_flight[command.dispatch] = command.replica
                piece = self._piece_of(command.start, command.stop)
                self._transport.send(command.replica, command.dispatch, WORK, piece)
            case commands.CommitChunk():
                self._last_commit_s = self._clock()
                self._rows_done += command.stop - command.start
                answer = self._answers[command.dispatch]
                self._deliver(command.start, command.stop, answer.rows)
                self._commits.append(
                    Commit(
                        replica=command.replica,
                        start=command.start,
                        stop=command.stop,
                        result=answer.result,
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
            case commands.FinishJob():
                self._open.discard(command.job)
            case commands.FailJob():
                self._failed = command
            case _:
                raise AssertionError(f"a job of chunks needs no {command!r}")

    def _progress(self) -> Progress:
        began_s = self._replicas.first_ready_s
        return Progress(
            snapshot=self._scheduler.snapshot(),
            rows_total=self._rows_supplied,
            rows_done=self._rows_done,
            running_s=0.0 if began_s is None else self._clock() - began_s,
            starting=self._replicas.starting,
        )


def _no_piece(start: int, stop: int) -> Any:
    raise AssertionError(f"rows {start} to {stop} before run()")
