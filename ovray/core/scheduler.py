"""Decides which replica runs which work.  Events in, commands out: ``handle`` is the only way in.

May not enter: ray, openvino, asyncio, threading, time, os, file or network access, global random.
Time arrives as ``now_s`` beside each event; chance comes from the ``random.Random`` given at construction.
Vocabulary: events.py, commands.py.
Rooms behind it: requests.py, jobs.py, health.py, short_way.py, gathering.py, on one ledger.py.
Callers: the driver; in rehearsals and tests simulation.py.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ovray.core.commands import Command, ReleaseReplica, WakeAt
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
)
from ovray.core.gathering import gathering_s
from ovray.core.health import Health
from ovray.core.ids import ReplicaId
from ovray.core.jobs import Jobs
from ovray.core.ledger import Ledger, Replica, ReplicaState
from ovray.core.policies import POLICIES, SchedulePolicy
from ovray.core.requests import Requests
from ovray.core.settings import SchedulerSettings
from ovray.core.short_way import ShortWay
from ovray.core.snapshot import Snapshot, take_snapshot
from ovray.core.work import RequestWork
from ovray.errors import InvariantError

#: Events kept for the story that an ``InvariantError`` tells.
_JOURNAL_LENGTH = 64


class Scheduler:
    """Spreads requests and jobs over replicas.

    Args:
        policy: who gets the next piece of work.
        chance: spreads the waits of evicted replicas; the same seed and events give the same commands.
        settings: the numbers of settings.py.
    """

    def __init__(
        self,
        policy: SchedulePolicy = SchedulePolicy.FASTEST_COMPLETION,
        chance: random.Random | None = None,
        settings: SchedulerSettings | None = None,
    ) -> None:
        settings = settings or SchedulerSettings()
        new_policy = POLICIES[policy]
        self.policy = policy
        self._ledger = Ledger()
        self._health = Health(self._ledger, settings, chance or random.Random(0))
        self._requests = Requests(self._ledger, new_policy, settings)
        self._jobs = Jobs(self._ledger, new_policy, settings)
        self._short_way = ShortWay(self._ledger, self._requests, self._health)
        #: The ``WakeAt`` that the driver was last given and that has not come; ``inf`` where there is none.
        self._wake_at_s = math.inf
        #: When somebody wants to act next, as it was after the last event; may be too early, never too late.
        self._next_alarm_s = math.inf
        self._journal: deque[tuple[float, tuple[Event, ...], tuple[Command, ...]]] = deque(maxlen=_JOURNAL_LENGTH)
        self._handlers: dict[type[Any], Callable[[Any], list[Command]]] = {
            ReplicaReady: self._on_replica_ready,
            ReplicaDraining: self._on_replica_draining,
            ReplicaLost: self._on_replica_lost,
            ProbeFailed: self._on_probe_failed,
            RequestSubmitted: self._requests.submit,
            RequestCancelled: lambda event: self._requests.cancel(event.request),
            JobSubmitted: self._jobs.submit,
            JobCancelled: lambda event: self._jobs.cancel(event.job),
            Completed: self._on_completed,
            Failed: self._on_failed,
            TimerFired: self._on_timer_fired,
            PrioritiesChanged: self._on_priorities_changed,
        }

    def gathering_s(self, now_s: float, gathered_s: float) -> float:
        """Says for how long replies may be left alone from now on; see gathering.py."""
        return gathering_s(self._ledger.replicas.values(), now_s, gathered_s)

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take in one fact and return what is to be done about it, in order.

        Args:
            event: what happened.  An impossible one raises and leaves the state as it was.
            now_s: when, on any clock that does not go back; a time before the last one counts as the last one.

        Raises:
            InvariantError: the event makes no sense, such as a window of 0 or ranges that overlap.
        """
        return self.handle_all((event,), now_s)

    def handle_all(self, happened: Sequence[Event], now_s: float) -> list[Command]:
        """Take in what came together, and hand out work once, after the last of it.

        So what came in one message costs one look at who may have more, not one for each of its parts.

        Args:
            happened: in order.  An impossible one raises; where others came before it, that is the end of this
                scheduler, for what they led to is not told.
            now_s: as for ``handle``.

        Raises:
            InvariantError: as for ``handle``.
        """
        ledger = self._ledger
        now_s = max(ledger.now_s, now_s)
        is_alone = len(happened) == 1 and now_s < self._next_alarm_s and not ledger.touched
        if is_alone and (on_short_way := self._short_way.take(happened[0], now_s)) is not None:
            if ledger.touched:
                self._settle(on_short_way)
            self._journal.append((now_s, tuple(happened), tuple(on_short_way)))
            return on_short_way
        self._short_way.book()
        commands: list[Command] = []
        if ledger.touched:
            self._tell_of_changes(commands)
        before_s, ledger.now_s = ledger.now_s, now_s
        for event in happened:
            handler = self._handlers.get(type(event))
            try:
                if handler is None:
                    raise InvariantError(f"{event!r} is no event of the scheduler")
                commands += handler(event)
            except InvariantError:
                ledger.now_s = before_s
                raise
        # Of the alarms that this brought, only deadlines can be due already.
        if self._next_alarm_s <= now_s or self._requests.next_alarm_s <= now_s:
            self._wake(commands)
        self._settle(commands)
        self._journal.append((now_s, tuple(happened), tuple(commands)))
        return commands

    def snapshot(self) -> Snapshot:
        """Return a frozen picture of replicas, jobs, queue and counters: O(replicas), for progress displays."""
        self._short_way.book()
        return take_snapshot(self._ledger, self._jobs.running.values(), self._requests)

    # --- replicas -------------------------------------------------------------------------------------------

    def _on_replica_ready(self, event: ReplicaReady) -> list[Command]:
        if event.request_window < 1 or event.chunk_window < 1 or event.nireq < 1:
            raise InvariantError(f"{event!r}: windows and nireq must be at least 1")
        if event.rate_rows_per_s is not None and not 0.0 < event.rate_rows_per_s < math.inf:
            raise InvariantError(f"{event!r}: a rate must be above 0, or None where none is known")
        known = self._ledger.replicas.get(event.replica)
        if known is None:
            self._ledger.enrol(event)
        elif known.state is ReplicaState.LOST:
            self._ledger.enrol(event)
            self._health.returned(known)
        elif known.state is ReplicaState.PROBING:
            known.state = ReplicaState.READY
            known.failures_in_a_row = 0
            self._health.heard(known)
        else:
            self._ledger.counters.needless_events += 1
        return []

    def _on_replica_draining(self, event: ReplicaDraining) -> list[Command]:
        replica = self._known(event.replica)
        if replica is None or replica.state in (ReplicaState.DRAINING, ReplicaState.LOST):
            self._ledger.counters.needless_events += 1
            return []
        replica.state = ReplicaState.DRAINING
        self._health.forget(replica)
        return []

    def _on_replica_lost(self, event: ReplicaLost) -> list[Command]:
        replica = self._known(event.replica)
        if replica is None or replica.state is ReplicaState.LOST:
            self._ledger.counters.needless_events += 1
            return []
        was_draining = replica.state is ReplicaState.DRAINING
        self._health.lost(replica)
        commands: list[Command] = []
        for dispatch in [*replica.requests.values(), *replica.chunks.values()]:
            if dispatch.id not in self._ledger.dispatches:
                continue  # its job was failed by an earlier one of these
            if isinstance(dispatch.work, RequestWork):
                commands += self._requests.lost(dispatch, dispatch.work, event.reason)
            else:
                commands += self._jobs.lost(dispatch, dispatch.work, event.reason)
        if was_draining:
            self._ledger.forget(replica)
        return commands

    def _on_probe_failed(self, event: ProbeFailed) -> list[Command]:
        replica = self._known(event.replica)
        if replica is None or replica.state is not ReplicaState.PROBING:
            self._ledger.counters.needless_events += 1
            return []
        self._health.probe_failed(replica)
        return self._requests.probe_failed(event.message)

    def _on_priorities_changed(self, event: PrioritiesChanged) -> list[Command]:
        self._ledger.set_priorities(event.devices)
        return []

    def _known(self, replica_id: Any) -> Replica | None:
        return self._ledger.replicas.get(replica_id)

    # --- answers --------------------------------------------------------------------------------------------

    def _on_completed(self, event: Completed) -> list[Command]:
        dispatch = self._ledger.find(event.replica, event.dispatch)
        if dispatch is None:
            self._note_late_answer(event.replica)
            return []
        replica = self._ledger.replicas[dispatch.replica]
        if isinstance(dispatch.work, RequestWork):
            commands = self._requests.completed(dispatch, dispatch.work)
        else:
            commands = self._jobs.completed(dispatch, dispatch.work)
        self._health.completed(replica)
        return commands

    def _on_failed(self, event: Failed) -> list[Command]:
        dispatch = self._ledger.find(event.replica, event.dispatch)
        if dispatch is None:
            self._note_late_answer(event.replica)
            return []
        replica = self._ledger.replicas[dispatch.replica]
        if isinstance(dispatch.work, RequestWork):
            commands = self._requests.failed(dispatch, dispatch.work, event.cause, event.message)
        else:
            commands = self._jobs.failed(dispatch, dispatch.work, event.cause, event.message)
        if event.cause is FailureCause.DEVICE:
            self._health.failed(replica)
        else:
            self._health.refused(replica)
        return commands

    def _note_late_answer(self, replica_id: ReplicaId) -> None:
        """Drop an answer that nobody waits for any more; but who gives one is silent no longer."""
        self._ledger.counters.late_answers += 1
        replica = self._ledger.replicas.get(replica_id)
        if replica is not None and replica.is_stalled:
            self._health.heard(replica)

    # --- time -----------------------------------------------------------------------------------------------

    def _on_timer_fired(self, event: TimerFired) -> list[Command]:
        self._wake_at_s = math.inf
        return []

    def _wake(self, commands: list[Command]) -> None:
        """Act on every alarm that is due, whichever event brought the time."""
        if self._health.next_alarm_s <= self._ledger.now_s:
            probes, silent = self._health.wake()
            commands += probes
            for replica in silent:
                self._requests.stalled(replica)
                self._jobs.stalled(replica)
        if self._requests.next_alarm_s <= self._ledger.now_s:
            commands += self._requests.expire()

    def _settle(self, commands: list[Command]) -> None:
        """Hand out work until no more can be, let drained replicas go, and ask to be woken."""
        ledger, requests, jobs = self._ledger, self._requests, self._jobs
        if ledger.touched:
            self._tell_of_changes(commands)
        if requests.is_stirred:
            commands += requests.dispatch()
        if jobs.has_had_some:
            commands += jobs.dispatch()
        if ledger.touched:
            self._tell_of_changes(commands)
        next_s = min(self._health.next_alarm_s, requests.next_alarm_s)
        if jobs.has_had_some:
            next_s = min(next_s, jobs.next_alarm_s)
        self._next_alarm_s = next_s
        if next_s < self._wake_at_s or (self._wake_at_s <= ledger.now_s and next_s < math.inf):
            self._wake_at_s = next_s
            commands.append(WakeAt(at_s=next_s))

    def _tell_of_changes(self, commands: list[Command]) -> None:
        touched, self._ledger.touched = self._ledger.touched, {}
        for replica in touched:
            if (
                replica.state is ReplicaState.DRAINING
                and not replica.outstanding
                and replica.id in self._ledger.replicas
            ):
                self._ledger.forget(replica)
                self._health.forget(replica)
                commands.append(ReleaseReplica(replica=replica.id))
            self._requests.refresh(replica)
            self._jobs.refresh(replica)
            self._health.watch(replica)
        self._ledger.touched.clear()

    # --- self-check -----------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Raise ``InvariantError``, with the last events, where something that ovray promises does not hold."""
        try:
            self._short_way.book()
            self._ledger.check_invariants()
            holding = [replica.id for replica in self._ledger.replicas.values() if replica.outstanding]
            self._jobs.check_invariants(holding)
            self._requests.check_invariants(holding)
        except InvariantError as error:
            raise InvariantError(f"{error}\n{self._story()}") from error

    def _story(self) -> str:
        return "\n".join(
            f"{now_s:.6f} {', '.join(map(repr, happened))} -> {list(commands)!r}"
            for now_s, happened, commands in self._journal
        )
