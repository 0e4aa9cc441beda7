"""Takes requests from their submission to their end: the bounded queue, pins, deadlines, envelopes, retries.

May not enter: jobs; who is alive (health.py); which replica is best (policies.py).
"""

import math
from collections.abc import Callable, Iterable

from ovray.core.commands import (
    AcceptRequest,
    CancelDispatch,
    Command,
    DeliverError,
    DeliverResult,
    RefuseRequest,
    SendEnvelope,
)
from ovray.core.events import FailureCause, RequestSubmitted, WhenFull
from ovray.core.heap import LazyHeap
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.lanes import Lane, Standing
from ovray.core.ledger import Ledger, Replica, ReplicaState
from ovray.core.policies import Policy
from ovray.core.settings import SchedulerSettings
from ovray.core.work import Dispatch, History, RequestWork
from ovray.errors import InvariantError

_Turn = tuple[int, int]


class _Queue:
    """The waiting requests of one pin (``None``: of all that are not pinned), and the replicas they may go to."""

    __slots__ = ("lane", "pin", "rows_waiting", "waiting")

    def __init__(self, pin: str | None, policy: Policy) -> None:
        self.pin = pin
        self.lane = Lane(policy)
        self.waiting: LazyHeap[RequestWork, _Turn] = LazyHeap()
        self.rows_waiting = 0

    def add(self, work: RequestWork) -> None:
        self.waiting.set(work, work.turn)
        self.rows_waiting += work.rows

    def take_out(self, work: RequestWork) -> None:
        self.waiting.discard(work)
        self.rows_waiting -= work.rows


class Requests:
    """Owns every request that has not ended."""

    def __init__(self, ledger: Ledger, new_policy: Callable[[], Policy], settings: SchedulerSettings) -> None:
        self._ledger = ledger
        self._new_policy = new_policy
        self._settings = settings
        self._live: dict[RequestId, RequestWork] = {}
        #: By pin; made when a pin is first used.
        self._queues: dict[str | None, _Queue] = {}
        #: Queues for which something may have become possible during this event.
        self._stirred: dict[_Queue, None] = {}
        #: Requests in ``_queues``; above ``max_waiting_requests`` only by retries.
        self._waiting_count = 0
        #: Submitters that wait for room in the queue, best turn first.
        self._submitters: LazyHeap[RequestWork, _Turn] = LazyHeap()
        #: Waiting requests and submitters that have a deadline.
        self._deadlines: LazyHeap[RequestWork, float] = LazyHeap()
        #: Requests that were held by a replica when it died, and have not ended: they are run alone, so that those
        #: beside them are not blamed for what one of them does.
        self._suspects: dict[RequestWork, None] = {}
        #: Gets no other requests while suspects wait, so that it has its hands free for them.
        self._tester: ReplicaId | None = None
        #: What a replica may still be sent during this event; at 0 the others come first.
        self._allowances: dict[Replica, int] = {}
        self._next_sequence = 0

    @property
    def next_alarm_s(self) -> float:
        deadline_s = self._deadlines.first_key()
        return math.inf if deadline_s is None else deadline_s

    @property
    def is_stirred(self) -> bool:
        """Whether something may be sent that could not be before."""
        return bool(self._stirred or self._submitters)

    @property
    def waiting_count(self) -> int:
        """Accepted requests that are with no replica."""
        return self._waiting_count

    @property
    def submitters_count(self) -> int:
        """Requests whose submitters wait for room in the queue."""
        return len(self._submitters)

    # --- from submission to end -----------------------------------------------------------------------------

    def submit(self, asked: RequestSubmitted) -> list[Command]:
        if asked.rows < 1 or math.isnan(asked.deadline_s):
            raise InvariantError(f"{asked!r}: a request has at least one row and a deadline that is a number")
        if asked.request in self._live:
            self._ledger.counters.needless_events += 1
            return []
        is_full = self._waiting_count >= self._settings.max_waiting_requests
        if is_full and asked.when_full is WhenFull.REFUSE:
            self._ledger.counters.refused += 1
            return [RefuseRequest(request=asked.request)]
        work = RequestWork(asked=asked, sequence=self._next_sequence, history=History(kills=asked.kills))
        self._next_sequence += 1
        self._live[asked.request] = work
        # At the bound already: one more death ends it, whoever was beside it.
        if 0 < asked.kills < self._settings.max_replicas_killed:
            self._suspects[work] = None
        if asked.deadline_s < math.inf:
            self._deadlines.set(work, asked.deadline_s)
        if is_full:
            self._submitters.set(work, work.turn)
            return []
        self._enqueue(work)
        return [AcceptRequest(request=asked.request)]

    @property
    def is_empty(self) -> bool:
        """Whether every request has ended."""
        return not self._live

    def pick_for_lone(self, rows: int, now_s: float) -> Replica | None:
        """Pick a replica for a request beside which there is none, and which any replica may have."""
        queue = self._queues.get(None)
        return None if queue is None else queue.lane.pick(rows, rows, now_s)

    def adopt(self, asked: RequestSubmitted, replica: Replica) -> None:
        """Take in a request that was sent to a replica as soon as it was submitted."""
        work = RequestWork(asked=asked, sequence=self._next_sequence)
        self._next_sequence += 1
        self._live[asked.request] = work
        self._ledger.book(replica, work)

    def cancel(self, request: RequestId) -> list[Command]:
        work = self._live.get(request)
        if work is None:
            self._ledger.counters.needless_events += 1
            return []
        return self._end(work, "cancelled by its caller")

    def completed(self, dispatch: Dispatch, work: RequestWork) -> list[Command]:
        """Deliver a result: this is the first answer, since it is still in the ledger."""
        if next(iter(work.dispatches)) != dispatch.id:
            self._ledger.counters.backups_won += 1
        self._ledger.book_completion(dispatch)
        return [DeliverResult(request=work.asked.request, dispatch=dispatch.id), *self._strike_off(work)]

    def failed(self, dispatch: Dispatch, work: RequestWork, cause: FailureCause, message: str) -> list[Command]:
        """Try a request elsewhere, or end it where the input is to blame or the tries are used up."""
        self._ledger.book_withdrawal(dispatch)
        if cause is FailureCause.INPUT:
            return self._end(work, message)
        work.history.tries += 1
        work.history.failed_on |= {dispatch.replica}
        if work.dispatches:
            return []
        if work.history.tries >= self._settings.max_tries:
            return self._end(work, f"{message}; given up after {work.history.tries} tries")
        self._retry(work, dispatch)
        return []

    def lost(self, dispatch: Dispatch, work: RequestWork, reason: str) -> list[Command]:
        """Send a request again whose replica is gone, or give it up as poison."""
        self._ledger.book_withdrawal(dispatch)
        work.history.kills += 1
        if work.dispatches:
            return []
        if work.history.kills > self._settings.max_replicas_killed:
            self._ledger.counters.poisoned += 1
            message = f"{work.history.kills} replicas died while they held this request, the last one: {reason}"
            return self._end(
                work, f"{message}; given up as poison; look at its input or raise max_replicas_killed"
            )
        self._suspects[work] = None
        self._retry(work, dispatch)
        return []

    def stalled(self, replica: Replica) -> None:
        """Let the requests of a silent replica run elsewhere, too; the first answer counts."""
        for dispatch in replica.requests.values():
            work = dispatch.work
            if isinstance(work, RequestWork) and self._is_with_the_silent(work):
                self._enqueue(work)

    def probe_failed(self, message: str) -> list[Command]:
        """Count a failed probe as a try of each request that could only have gone to replicas that all fail.

        So it ends as it would have on a replica that is still trusted, and does not wait while they fail.
        """
        commands: list[Command] = []
        for queue in [*self._queues.values()]:
            if not self._is_without_hope(queue):
                continue
            for work in [*queue.waiting.items()]:
                work.history.tries += 1
                if work.history.tries >= self._settings.max_tries and not work.dispatches:
                    what = f"{message}; no replica is left that does not fail"
                    commands += self._end(work, f"{what}; given up after {work.history.tries} tries")
        return commands

    def _is_without_hope(self, queue: _Queue) -> bool:
        """Say whether all replicas that a queue's requests may go to are evicted, and those are some."""
        states = {
            replica.state
            for replica in self._ledger.replicas.values()
            if queue.pin in (None, replica.device, replica.id)
        }
        return states == {ReplicaState.EVICTED}

    def expire(self) -> list[Command]:
        """End waiting requests whose deadline has come."""
        commands: list[Command] = []
        while self.next_alarm_s <= self._ledger.now_s and (work := self._deadlines.first()) is not None:
            self._ledger.counters.expired += 1
            commands += self._end(work, "its deadline passed before a replica had room for it")
        return commands

    def _end(self, work: RequestWork, message: str) -> list[Command]:
        return [*self._strike_off(work), DeliverError(request=work.asked.request, message=message)]

    def _strike_off(self, work: RequestWork) -> list[Command]:
        """Forget a request that has ended; withdraw it from wherever it still is."""
        commands: list[Command] = []
        for dispatch in list(work.dispatches.values()):
            self._ledger.book_withdrawal(dispatch)
            commands.append(CancelDispatch(replica=dispatch.replica, dispatch=dispatch.id))
        if work in self._submitters:
            self._submitters.discard(work)
            self._deadlines.discard(work)
        elif work in self._queue_of(work).waiting:
            self._dequeue(work)
        self._suspects.pop(work, None)
        del self._live[work.asked.request]
        return commands

    def _is_with_the_silent(self, work: RequestWork) -> bool:
        """Say whether nobody that is heard of runs a request."""
        return all(self._ledger.replicas[dispatch.replica].is_stalled for dispatch in work.dispatches.values())

    def _retry(self, work: RequestWork, back_from: Dispatch) -> None:
        """Queue a request again; its turn is that of its submission, so it goes before later ones."""
        self._ledger.count_retry(back_from)
        if work.asked.deadline_s < math.inf:
            self._deadlines.set(work, work.asked.deadline_s)
        self._enqueue(work)

    def _enqueue(self, work: RequestWork) -> None:
        queue = self._queue_of(work)
        if work in queue.waiting:
            return  # a copy of it was to be sent
        queue.add(work)
        self._stirred[queue] = None
        self._waiting_count += 1

    def _dequeue(self, work: RequestWork) -> None:
        self._queue_of(work).take_out(work)
        self._deadlines.discard(work)
        self._waiting_count -= 1

    def _admit(self, commands: list[Command]) -> bool:
        """Let waiting submitters go on while there is room; say whether any did."""
        admitted = False
        while self._waiting_count < self._settings.max_waiting_requests:
            work = self._submitters.first()
            if work is None:
                break
            self._submitters.discard(work)
            self._enqueue(work)
            commands.append(AcceptRequest(request=work.asked.request))
            admitted = True
        return admitted

    # --- sending --------------------------------------------------------------------------------------------

    def refresh(self, replica: Replica) -> None:
        """Tell every queue that concerns a replica how it stands after a change."""
        if not self._queues:
            return
        replica.told_rows_per_s = replica.rows_per_s
        standing = self._standing(replica)
        queues = self._queues
        for pin in (None,) if len(queues) == 1 and None in queues else (None, replica.device, replica.id):
            queue = queues.get(pin)
            if queue is not None:
                queue.lane.place(replica, standing)
                if queue.waiting:
                    self._stirred[queue] = None

    def dispatch(self) -> list[Command]:
        """Send what can be sent; what goes to one replica travels in one envelope."""
        commands: list[Command] = []
        envelopes: dict[ReplicaId, list[tuple[DispatchId, RequestId]]] = {}
        self._place_stirred(envelopes)
        while self._admit(commands):
            self._place_stirred(envelopes)
        # Those that were sent something are touched, so their queues hear of them once more, without allowances.
        self._allowances.clear()
        self._stirred.clear()
        for replica_id, sent in envelopes.items():
            commands.append(SendEnvelope(replica=replica_id, requests=tuple(sent)))
        return commands

    def _place_stirred(self, envelopes: dict[ReplicaId, list[tuple[DispatchId, RequestId]]]) -> None:
        """Place waiting requests, best turn first, until no queue has one that can be placed."""
        stuck: list[RequestWork] = []
        queues = [queue for queue in self._stirred if queue.waiting]
        while queues:
            queue = queues[0] if len(queues) == 1 else min(queues, key=_turn_of_first)
            work = queue.waiting.first()
            if work is None:
                queues.remove(queue)
                continue
            if work.dispatches and not self._is_with_the_silent(work):
                self._dequeue(work)  # whom it is with has been heard again
                continue
            replica = self._pick(queue, work)
            if replica is not None:
                self._send(work, replica, queue, envelopes)
            elif self._is_particular(work) and self._has_room(queue, work):
                # Where it may go has no room now; those behind it are not so particular.
                queue.take_out(work)
                stuck.append(work)
            else:
                queues.remove(queue)
        for work in stuck:
            self._queue_of(work).add(work)

    def _is_particular(self, work: RequestWork) -> bool:
        """Say whether a request may not go to just any replica that has room."""
        return bool(work.dispatches or work.history.failed_on or work in self._suspects)

    def _has_room(self, queue: _Queue, work: RequestWork) -> bool:
        return queue.lane.pick(work.rows, queue.rows_waiting, self._ledger.now_s) is not None

    def _pick(self, queue: _Queue, work: RequestWork) -> Replica | None:
        lane, now_s = queue.lane, self._ledger.now_s
        replica = lane.pick(work.rows, queue.rows_waiting, now_s)
        if not work.dispatches and not work.history.failed_on and not self._suspects:
            return replica
        aside: list[Replica] = []
        while replica is not None and not self._may_have(replica, work, queue):
            lane.set_aside(replica)
            aside.append(replica)
            replica = lane.pick(work.rows, queue.rows_waiting, now_s)
        for barred in aside:
            lane.place(barred, self._standing(barred))
        return replica

    def _may_have(self, replica: Replica, work: RequestWork, queue: _Queue) -> bool:
        if self._ledger.is_barred(work.history, replica, queue.lane.members):
            return False
        if any(dispatch.replica == replica.id for dispatch in work.dispatches.values()):
            return False
        if work in self._suspects:
            if replica.requests and self._tester not in queue.lane.members:
                self._tester = replica.id
            return not replica.requests
        return replica.id != self._tester or not replica.requests

    def _send(
        self,
        work: RequestWork,
        replica: Replica,
        queue: _Queue,
        envelopes: dict[ReplicaId, list[tuple[DispatchId, RequestId]]],
    ) -> None:
        is_last = len(queue.waiting) == 1 and len(self._stirred) == 1 and not self._submitters
        if not is_last:
            if replica not in self._allowances:
                self._allowances[replica] = self._allowance(replica, queue)
            self._allowances[replica] -= 1
        self._dequeue(work)
        self._ledger.counters.backups_sent += bool(work.dispatches)
        dispatch = self._ledger.book(replica, work)
        envelopes.setdefault(replica.id, []).append((dispatch.id, work.asked.request))
        if not is_last:
            self.refresh(replica)

    def _allowance(self, replica: Replica, queue: _Queue) -> int:
        """Return how many requests a replica may get now: its share of those waiting, or what it needs to work."""
        share = queue.lane.policy.share(replica) or 0.0
        fair = math.ceil(share * len(queue.waiting) - 1e-9)
        return max(1, fair, replica.nireq - len(replica.requests))

    def _standing(self, replica: Replica) -> Standing:
        self._top_up(replica)
        if not replica.is_eligible:
            return Standing.OUT
        if replica.is_topped_up or self._allowances.get(replica) == 0 or self._runs_a_suspect(replica):
            return Standing.FULL
        return Standing.OPEN

    def _runs_a_suspect(self, replica: Replica) -> bool:
        if not self._suspects:
            self._tester = None
            return False
        # Where one runs, it runs alone.
        return len(replica.requests) == 1 and next(iter(replica.requests.values())).work in self._suspects

    def _top_up(self, replica: Replica) -> None:
        """Let a full replica run down to what hides one round trip before it gets more, in one envelope."""
        held = len(replica.requests)
        if held >= replica.request_window:
            replica.is_topped_up = True
        elif replica.is_topped_up:
            replica.is_topped_up = held > self._low_water(replica)

    def _low_water(self, replica: Replica) -> int:
        rows_per_s = replica.rate.rows_per_s or 0.0
        rows_each = max(1.0, replica.rows_outstanding / max(1, replica.outstanding))
        in_a_round_trip = math.ceil(self._settings.round_trip_s * rows_per_s / rows_each)
        return min(replica.request_window - 1, replica.nireq + in_a_round_trip)

    def _queue_of(self, work: RequestWork) -> _Queue:
        pin = work.asked.pinned_to
        queue = self._queues.get(pin)
        if queue is None:
            queue = self._queues[pin] = _Queue(pin, self._new_policy())
            for replica in self._ledger.replicas.values():
                if pin is None or pin in (replica.device, replica.id):
                    queue.lane.place(replica, self._standing(replica))
        return queue

    # --- self-check -----------------------------------------------------------------------------------------

    def check_invariants(self, holding: Iterable[ReplicaId]) -> None:
        """Raise ``InvariantError`` where a request is nowhere, twice, or waits although nobody works."""
        waiting = [work for queue in self._queues.values() for work in queue.waiting.items()]
        if len(waiting) != self._waiting_count:
            raise InvariantError(f"{len(waiting)} requests wait, {self._waiting_count} are counted")
        places = {work: 1 for work in waiting}
        for work in self._submitters.items():
            places[work] = places.get(work, 0) + 1
        for work in self._live.values():
            holders = {dispatch.replica for dispatch in work.dispatches.values()}
            if not places.get(work) and not holders:
                raise InvariantError(f"request {work.asked.request} is nowhere")
            if places.get(work, 0) > 1 or len(holders) < len(work.dispatches):
                raise InvariantError(f"request {work.asked.request} is twice in one place")
        if self._submitters and self._waiting_count < self._settings.max_waiting_requests:
            raise InvariantError("a submitter waits although the queue has room")
        for queue in self._queues.values():
            self._check_queue(queue, set(holding))

    def _check_queue(self, queue: _Queue, working: set[ReplicaId]) -> None:
        if queue.rows_waiting != sum(work.rows for work in queue.waiting.items()):
            raise InvariantError(f"rows waiting for {queue.pin} are counted wrong")
        for idler in queue.lane.idlers():
            for work in queue.waiting.items():
                if not self._ledger.is_barred(work.history, idler, queue.lane.members):
                    raise InvariantError(f"{idler.id} idles while request {work.asked.request} waits")
        if queue.waiting and queue.lane.members and not working & queue.lane.members.keys():
            raise InvariantError(f"requests wait for {queue.pin}, replicas may have them, and all of those idle")


def _turn_of_first(queue: _Queue) -> _Turn:
    return queue.waiting.first_key() or (0, 0)
