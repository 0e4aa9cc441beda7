"""Keeps the story of one job: what was sent to whom, when, and what became of it.  Its memory is bounded.

It is shown each event that the scheduler was told and the commands that came of it, and asks for nothing else.
May not enter: decisions, rows, how the story is told (scoring/page/).  Sums cover the whole job, at the resolution
of time_bins.py; single sendings are remembered for the last ``SPANS_KEPT``, and out of the ordinary ones for the
first ``MARKS_KEPT``.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ovray.core import commands, events
from ovray.core.ids import DispatchId, ReplicaId
from ovray.driver.time_bins import TimeBins

SPANS_KEPT = 4000
MARKS_KEPT = 1000


class Sending(Enum):
    """Says why rows were sent."""

    FIRST = "first"
    COPY = "copy"  # another replica has them, too
    RETRY = "retry"  # they came back from a replica that failed


class Fate(Enum):
    """Says what became of a sending."""

    DONE = "done"
    FAILED = "failed"  # the replica said so, and lives
    LOST = "lost"  # with its replica
    NEEDLESS = "needless"  # called off: another was faster, or the job has failed
    OPEN = "open"  # the story ends before it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Is one sending of some rows to one replica.  Times count from the beginning of the job."""

    replica: ReplicaId
    start: int
    stop: int
    sending: Sending
    fate: Fate
    #: When it left the driver.
    sent_s: float
    #: When the replica could begin with it: then, or when it had answered what it held before.
    began_s: float
    ended_s: float
    #: Why it failed.
    message: str = ""

    @property
    def is_ordinary(self) -> bool:
        """Whether it went as it should, at the first try."""
        return self.sending is Sending.FIRST and self.fate in (Fate.DONE, Fate.OPEN)


@dataclass(slots=True, kw_only=True)
class Lane:
    """Is what one replica did.  Times count from the beginning of the job."""

    device: str
    ready_s: float
    rows_done: int = 0
    chunks_done: int = 0
    #: Sendings of each kind, and their fates, ordinary ones too.
    sendings: Counter[Sending] = field(default_factory=Counter)
    fates: Counter[Fate] = field(default_factory=Counter)
    #: When it last answered.
    answered_s: float = 0.0
    working_s: float = 0.0
    #: Since when it is gone, lost or sent away; ``None`` while it is there.
    gone_s: float | None = None
    #: Earlier times for which it was gone, added up.
    away_s: float = 0.0
    #: Seconds of work over time.
    work: TimeBins = field(default_factory=TimeBins)

    def there_s(self, end_s: float) -> float:
        """Returns for how long it was ready or working until then."""
        return max(0.0, (end_s if self.gone_s is None else self.gone_s) - self.ready_s - self.away_s)

    def idle_s(self, end_s: float) -> float:
        """Returns for how long of that it held no work."""
        return max(0.0, self.there_s(end_s) - self.working_s)

    def last_idle_s(self, end_s: float) -> float:
        """Returns for how long it has held none, from its last answer on; 0 for one that is gone."""
        return max(0.0, end_s - max(self.answered_s, self.ready_s)) if self.gone_s is None else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """Is a sending that has no fate yet."""

    replica: ReplicaId
    start: int
    stop: int
    sending: Sending
    sent_s: float


class Journal:
    """Listens to one job of chunks, of a real driver or of a simulation.

    Example:
        >>> from ovray.core.scheduler import Scheduler
        >>> from ovray.core.simulated_replica import ReplicaModel
        >>> from ovray.core.simulation import Simulation
        >>> journal = Journal()
        >>> model = ReplicaModel(id=ReplicaId("a"), device="a/SIM", row_s=0.01)
        >>> _ = Simulation(Scheduler(), [model], observer=journal.note).run_job(100)
        >>> journal.rows_done
        100
    """

    def __init__(self) -> None:
        #: On the driver's clock; all other times here count from it.
        self._origin_s: float | None = None
        #: When something was last heard of the job.
        self.ended_s = 0.0
        self._is_over = False
        self.lanes: dict[ReplicaId, Lane] = {}
        #: Rows over the time that was spent on them.
        self.rows = TimeBins()
        self.spans: deque[Span] = deque(maxlen=SPANS_KEPT)
        #: All that have ended, kept or not.
        self.spans_ended = 0
        #: Those out of the ordinary.
        self.marks: list[Span] = []
        self.marks_ended = 0
        #: Copies that were done before the original.
        self.copies_won = 0
        self._open: dict[DispatchId, _Open] = {}
        #: How many of ``_open`` have this first row.
        self._starts: Counter[int] = Counter()
        #: Rows below this have been sent before.
        self._sent_below = 0

    @property
    def first_ready_s(self) -> float | None:
        """When the first replica was ready."""
        return min((lane.ready_s for lane in self.lanes.values()), default=None)

    @property
    def rows_done(self) -> int:
        """Rows that are done."""
        return sum(lane.rows_done for lane in self.lanes.values())

    @property
    def is_complete(self) -> bool:
        """Whether ``spans`` has all there were."""
        return self.spans_ended <= SPANS_KEPT

    def sendings(self, of: Sending) -> int:
        """Returns how many there were of a kind, those that have not ended too."""
        return sum(lane.sendings[of] for lane in self.lanes.values())

    def fates(self, of: Fate) -> int:
        """Returns how many sendings ended so."""
        return sum(lane.fates[of] for lane in self.lanes.values())

    def note(self, now_s: float, event: events.Event, came_of_it: Sequence[commands.Command]) -> None:
        """Takes in one event, and what the scheduler made of it, at a time on the driver's clock."""
        if self._is_over:
            return  # answers to what was called off
        if self._origin_s is None:
            self._origin_s = now_s
        at_s = self.ended_s = max(self.ended_s, now_s - self._origin_s)
        match event:
            case events.ReplicaReady():
                self._note_ready(event, at_s)
            case events.Failed():
                self._end(event.dispatch, Fate.FAILED, at_s, event.message)
            case events.ReplicaLost():
                self._note_loss(event, at_s)
        for command in came_of_it:
            self._note_command(command, at_s)

    def _note_command(self, command: commands.Command, at_s: float) -> None:
        match command:
            case commands.CommitChunk():
                self._end(command.dispatch, Fate.DONE, at_s)
            case commands.CancelDispatch():
                self._end(command.dispatch, Fate.NEEDLESS, at_s)
            case commands.SendChunk():
                self._begin(command, at_s)
            case commands.ReleaseReplica():
                self.lanes[command.replica].gone_s = at_s
            case commands.FinishJob() | commands.FailJob():
                self._is_over = True

    def close(self) -> None:
        """Ends the story where it is: what is under way stays open."""
        for dispatch in list(self._open):
            self._end(dispatch, Fate.OPEN, self.ended_s)

    def _note_ready(self, event: events.ReplicaReady, at_s: float) -> None:
        lane = self.lanes.setdefault(event.replica, Lane(device=event.device, ready_s=at_s, answered_s=at_s))
        if lane.gone_s is not None:
            lane.away_s += at_s - lane.gone_s
            lane.answered_s = at_s
            lane.gone_s = None

    def _note_loss(self, event: events.ReplicaLost, at_s: float) -> None:
        for dispatch in [id for id, sending in self._open.items() if sending.replica == event.replica]:
            self._end(dispatch, Fate.LOST, at_s, event.reason)
        if event.replica in self.lanes:
            self.lanes[event.replica].gone_s = at_s

    def _begin(self, command: commands.SendChunk, at_s: float) -> None:
        if self._starts[command.start]:
            sending = Sending.COPY
        elif command.start < self._sent_below:  # the scheduler cuts fresh rows in their order
            sending = Sending.RETRY
        else:
            sending = Sending.FIRST
            self._sent_below = command.stop
        self._starts[command.start] += 1
        self.lanes[command.replica].sendings[sending] += 1
        self._open[command.dispatch] = _Open(
            replica=command.replica, start=command.start, stop=command.stop, sending=sending, sent_s=at_s
        )

    def _end(self, dispatch: DispatchId, fate: Fate, at_s: float, message: str = "") -> None:
        sent = self._open.pop(dispatch, None)
        if sent is None:
            return  # ended before: the answer of a copy that was called off
        self._starts[sent.start] -= 1
        if not self._starts[sent.start]:
            del self._starts[sent.start]
        lane = self.lanes[sent.replica]
        began_s = min(max(sent.sent_s, lane.answered_s), at_s)
        span = Span(
            replica=sent.replica,
            start=sent.start,
            stop=sent.stop,
            sending=sent.sending,
            fate=fate,
            sent_s=sent.sent_s,
            began_s=began_s,
            ended_s=at_s,
            message=message,
        )
        lane.fates[fate] += 1
        lane.working_s += at_s - began_s
        lane.work.add(began_s, at_s, at_s - began_s)
        lane.answered_s = at_s
        if fate is Fate.DONE:
            rows = sent.stop - sent.start
            lane.rows_done += rows
            lane.chunks_done += 1
            # From its sending on: a replica has begun with it before it has answered what it held before.
            self.rows.add(sent.sent_s, at_s, rows)
            self.copies_won += sent.sending is Sending.COPY
        self._keep(span)

    def _keep(self, span: Span) -> None:
        self.spans.append(span)
        self.spans_ended += 1
        if not span.is_ordinary:
            self.marks_ended += 1
            if len(self.marks) < MARKS_KEPT:
                self.marks.append(span)

    def tail_began_s(self) -> float:
        """Returns when the first of the replicas that had work and are left ran out of it for good."""
        workers = [lane for lane in self.lanes.values() if lane.sendings]
        return self.ended_s - max((lane.last_idle_s(self.ended_s) for lane in workers), default=0.0)
