"""Serves requests from any thread over a set of replicas: the thread that drives them, and the way in.

May not enter: what becomes of a request (request_loop.py), decisions (core), Ray (transport.py), OpenVINO's
objects (runtime/).  Whatever changes the loop happens on the thread that has the turn: the driver thread, or a
caller's that finds nobody driving and sends its own request.  All others leave a note in the inbox.
"""

import atexit
import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from ovray.core import events
from ovray.core.ids import ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.scheduler import Scheduler
from ovray.core.serving_order import ServingOrder
from ovray.core.settings import SchedulerSettings
from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.devices.replanning import Present
from ovray.driver.bundles import BUNDLE_BYTES, Bundles
from ovray.driver.calls import Call, Ended
from ovray.driver.interrupts import HeldBack
from ovray.driver.lifecycle import ReplicaSet, Upkeep
from ovray.driver.mailbox import Ready
from ovray.driver.messages import PoolEnded, PoolRearranged, ReplicaStart, Replied
from ovray.driver.meter import ReplicaMeter
from ovray.driver.ordering import Ordering
from ovray.driver.reading import Reading, read_replicas
from ovray.driver.reporter import Reporter
from ovray.driver.request_loop import RequestLoop
from ovray.driver.room import Room
from ovray.driver.small_requests import SmallRequest
from ovray.driver.spans import Spans
from ovray.driver.trace import Trace
from ovray.driver.transport import Inbox, Transport
from ovray.driver.works import work_of_request
from ovray.errors import InvariantError, OvrayError, ReplicaError
from ovray.replica.workload import ReplicaReport

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: What the driver thread may take to answer a question or to end; it never waits for long itself.
ANSWER_TIMEOUT_S = 30.0

#: How often those who wait look whether the pool still lives.
_LOOK_S = 0.1

#: How often one who waits for the last answers looks whether they are there.
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """Says how a pool stands."""

    scheduler: Snapshot
    #: Where every replica that was asked for is, or was to be; hosts that joined later have theirs behind the
    #: others.
    specs: tuple[ReplicaSpec, ...]
    #: What the replicas turned out to be; also of those that were lost later.
    reports: Mapping[ReplicaId, ReplicaReport]
    starting: tuple[ReplicaId, ...]
    #: What of them holds cores or devices, or is about to.
    present: Present
    #: Why replicas that were wanted did not take part, or left.
    failures: Mapping[ReplicaId, Exception]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """Something to be done on the driver thread."""

    do: Callable[[], Any]
    done: Future[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closing:
    """The last note in the inbox."""


class TensorStorage(Protocol):
    """Keeps the tensors of requests from their submission to their end.  Safe to use from many threads."""

    def place(self, tensor: NDArray[Any]) -> NDArray[Any] | None:
        """Copies a tensor to where ``keep`` leaves it, until ``forget``; ``None``: it is not worth it."""
        ...

    def keep(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Copies a tensor, unless it was placed and not forgotten; what is kept is C-contiguous."""
        ...

    def forget(self, kept: Iterable[NDArray[Any]]) -> None:
        """Says once, for each time that these were placed or kept, that they are not needed any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Carriage:
    """Says how requests travel."""

    #: What replicas know this driver by.
    client: str
    #: Where answers go; also takes what other threads want of the driver thread.
    inbox: Inbox
    #: Carries what is sent.
    transport: Transport
    #: Keeps tensors until they are sent for the last time.
    storage: TensorStorage


class RequestPool:
    """Spreads requests over replicas that it starts and ends.  Safe to use from many threads.

    ``open_pool`` (opening.py) makes one of a model and a device string.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        carriage: Carriage,
        room: Room,
        let_go: Callable[[], None],
        order: ServingOrder | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        """Stores; ``start`` acts.

        Args:
            scheduler: must let as many requests wait as ``room`` has place for.
            carriage: how they travel.
            room: bounds the requests that have not ended.
            let_go: is called last, when the replicas have ended.
            order: which replicas are to serve as they come and go; ``None``: all alike.
            upkeep: how replicas are looked after; ``None`` is as by default.
        """
        self._inbox = carriage.inbox
        self._transport = carriage.transport
        #: Where tensors of requests lie.
        self.storage = carriage.storage
        self._room = room
        self._let_go = let_go
        self._replicas = ReplicaSet(carriage.transport, upkeep=upkeep)
        self._loop = RequestLoop(
            scheduler,
            carriage.transport,
            self._replicas,
            carriage.client,
            Bundles(carriage.inbox.put, SchedulerSettings().max_replicas_killed, room.leave),
        )
        self._loop.on_look = self._report
        #: Is told how the pool stands, now and then; may be set until ``start``, and is started and ended with it.
        self.reporter: Reporter | None = None
        #: Take in what has ended; may be set until ``start``.
        self.trace: Trace | None = None
        self.spans: Spans | None = None
        self._loop.ordering = self._ordering(order)
        #: Who holds it drives: the driver thread, or one that lends it a hand with small requests.
        self._turn = threading.Lock()
        #: The thread that has the turn, or had it last.
        self._turn_of: int | None = None
        self._sleeps_until_s = 0.0
        #: Is held by one that waits at the sockets in place of the driver thread, which waits for notes then.
        self._guest = threading.Lock()
        #: Whether one was here since the driver thread last looked.
        self._has_had_guest = False
        #: Why the pool cannot go on, if a lent hand was struck.
        self._lender_error: InvariantError | None = None
        #: Small requests that nobody has taken in yet.
        self._small: deque[SmallRequest] = deque()
        self._request_ids = itertools.count()
        self._pid = os.getpid()
        #: Set once, and then nothing is taken any more.
        self._over: OvrayError | None = None
        self._closing = False
        self._first_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ovray-driver", daemon=True)

    # --- from any thread ------------------------------------------------------------------------------------

    def start(self, wanted: Iterable[ReplicaStart]) -> None:
        """Starts replicas and the driver thread; returns when the first replica is ready.

        Raises:
            ConfigError: no device can run the model.
            ReplicaError: no replica could start.
        """
        _open_pools.add(self)
        self._replicas.start(wanted)
        self._loop.order_replicas()
        if self.reporter is not None:
            self.reporter.start()
        if self.trace is not None or self.spans is not None:
            self._loop.on_ended = self._trace_request
        self._thread.start()
        while not self._first_ready.wait(_LOOK_S):
            self.check_open()

    def submit(
        self,
        tensors: Sequence[NDArray[Any]],
        *,
        ended: Callable[[Ended], None],
        rows: int = 1,
        priority: int = 0,
        deadline_s: float | None = None,
        pinned_to: str | None = None,
    ) -> RequestId:
        """Takes a request; waits while the pool has no room for it.

        Args:
            tensors: the inputs in the order of the model's ports; their bytes are taken before this returns.
            ended: is called exactly once, by whoever drives: it must be quick and must not wait.
            rows: how much work this is.
            priority: higher goes first.
            deadline_s: seconds from now after which it is not started any more; ``None`` is no deadline.
            pinned_to: a replica's id or a ``host/device``; ``None`` is any.

        Raises:
            ReplicaError: the pool is closed or broken, or had no room before the deadline.
        """
        self.check_open()
        size_bytes = sum(tensor.nbytes for tensor in tensors)
        submitted_s = time.monotonic()
        if not self._room.enter(size_bytes, deadline_s, self.check_open):
            raise ReplicaError(
                f"{self._room.max_requests} requests or {self._room.max_bytes >> 20} MiB of inputs were waiting or"
                f" running, and none ended within the deadline of {deadline_s:g} s; the request was not taken"
            )
        taken = tuple(map(self.storage.keep, tensors))
        asked = events.RequestSubmitted(
            request=RequestId(next(self._request_ids)),
            rows=rows,
            priority=priority,
            deadline_s=math.inf if deadline_s is None else submitted_s + deadline_s,
            pinned_to=pinned_to,
        )

        def leave(how: Ended) -> None:
            self.storage.forget(taken)
            try:
                ended(how)
            finally:
                self._room.leave(size_bytes)

        call = Call(asked=asked, tensors=taken, ended=leave, submitted_s=submitted_s)
        if self.spans is not None:
            # Each caller gets a span of its own, so that each request has to stay one.
            call.context, call.may_be_joined = self.spans.here(), False
        self._hand_over(call, size_bytes)
        if self._over is not None:
            # The driver thread may have looked for the last time before the request was there.
            self._end_what_is_left()
        return asked.request

    @property
    def joined_in_flight(self) -> int:
        """How many requests in flight keep every replica busy where they are joined; 0 where they are not."""
        return self._loop.joined_in_flight

    def submit_small(self, request: SmallRequest) -> None:
        """Takes a request of few bytes; waits while the pool has no room for it.

        Where nothing is under way it is sent on this thread: to wake another one would cost more than that.  Else
        the driver thread sends it, with what has come until it is there; or when the next answer comes, if what
        is under way lasts so long.

        Args:
            request: hears of its end by its ``ends``.

        Raises:
            ReplicaError: the pool is closed or broken.
        """
        self._take_in(request)
        if self._has_had_guest:
            self._inbox.wake()  # the driver thread left the sockets to somebody who may have gone

    def infer_small(self, request: SmallRequest) -> None:
        """Takes a request as ``submit_small``, and may return only when it has ended.

        Where it is the only one under way, this thread waits at the sockets in the driver thread's place, so that
        no thread has to be woken for its answer but the one that wants it.
        """
        self._take_in(request)
        if self._loop.has_one and self._guest.acquire(blocking=False):
            try:
                self._wait_as_guest(request)
            finally:
                self._guest.release()
        if self._has_had_guest and not self._loop.is_idle:
            self._inbox.wake()

    def _take_in(self, request: SmallRequest) -> None:
        self.check_open()
        self._room.enter(request.kind.size_bytes, None, self.check_open)
        request.submitted_s = time.monotonic()
        # In this order: who drives looks here once more after each turn, so a request that finds the turn taken,
        # or enough under way, is found.
        self._small.append(request)
        request.is_taken = True
        if self._loop.is_idle:
            self._lend_a_hand()
        elif not self._loop.has_enough(len(self._small)):
            self._inbox.wake()
        if self._over is not None:
            # The driver thread may have looked for the last time before the request was there.
            self._end_what_is_left()

    def cancel_small(self, request: SmallRequest) -> None:
        """Ends a request with an error, unless it has ended."""
        self._inbox.put(lambda: self._loop.cancel_small(request))

    def cancel(self, request: RequestId) -> None:
        """Ends a request with an error, unless it has ended."""
        self._inbox.put(events.RequestCancelled(request=request))

    def snapshot(self) -> PoolSnapshot:
        """Says how the pool stands.

        Raises:
            ReplicaError: the pool is closed or broken.
        """
        return self._on_driver_thread(
            lambda: PoolSnapshot(
                scheduler=self._loop.snapshot(),
                specs=self._replicas.specs,
                reports=dict(self._replicas.reports),
                starting=self._replicas.starting,
                present=self._replicas.present,
                failures=dict(self._replicas.failures),
            )
        )

    def set_priorities(self, devices: Sequence[str]) -> None:
        """Gives the devices a new order, first is best; those left out get no new work.

        It holds whatever becomes of the devices: AUTO's own order ends with it.

        Args:
            devices: each ``host/device``, or the id of a replica.

        Raises:
            ReplicaError: the pool is closed or broken.
        """
        order = tuple(devices)
        self._on_driver_thread(lambda: self._loop.set_priorities(order))

    def rearrange(
        self, wanted: Sequence[ReplicaStart], order: ServingOrder | None, upkeep_of: Callable[[Inbox], Upkeep]
    ) -> None:
        """Has these replicas and no others from now on; returns before they are ready, and the others gone.

        Args:
            wanted: in the order in which they are preferred; those that are there already go on.
            order: which of them are to serve as they come and go; ``None``: all alike.
            upkeep_of: says how they are looked after; gets the inbox of the pool.

        Raises:
            ReplicaError: the pool is closed or broken.
        """
        upkeep = upkeep_of(self._inbox)
        self._on_driver_thread(lambda: self._loop.rearrange(wanted, self._ordering(order), upkeep))

    def read_property(self, name: str) -> Any:
        """Asks the first replica that is ready for a property of its compiled model.

        Raises:
            ConfigError: its device has no such property.
            ReplicaError: the pool is closed or broken, or the replica did not answer.
        """
        return self._ask_a_replica("read_property", name)

    def export_model(self) -> bytes:
        """Has the first replica that is ready export its compiled model.

        Raises:
            ConfigError: its device cannot.
            ReplicaError: the pool is closed or broken, or the replica did not answer.
        """
        exported: bytes = self._ask_a_replica("export_model")
        return exported

    def drain(self, timeout_s: float) -> bool:
        """Waits until every request that was taken has ended; says whether they did in time."""
        return self._room.wait_empty(timeout_s)

    def finish_held(self, timeout_s: float) -> int:
        """Has replicas finish the requests that they hold, and gives them no more; only ``close`` may follow.

        Returns:
            How many requests have not ended, after that or after ``timeout_s`` seconds.

        Raises:
            ReplicaError: the pool is closed or broken.
        """
        self._on_driver_thread(self._loop.hold_back)
        end_s = time.monotonic() + timeout_s
        while self._on_driver_thread(lambda: self._loop.held) and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        return self._room.occupants

    def close(self) -> None:
        """Ends the replicas; requests that have not ended end with an error.  A second call does nothing."""
        if self._pid != os.getpid() or self._thread.ident is None:
            return
        self._inbox.put(_Closing())
        if threading.current_thread() is not self._thread:
            self._thread.join(ANSWER_TIMEOUT_S)

    def check_open(self) -> None:
        """Raises where nothing can be asked of this pool any more.

        Raises:
            ReplicaError: the pool is closed, broken, or belongs to the process that this one was forked from.
        """
        if self._over is not None:
            raise self._over
        if self._pid != os.getpid():
            raise ReplicaError(
                "this process was forked from the one that compiled the model, and its replicas answer only there;"
                " compile in the child, or start it with the 'spawn' method of multiprocessing"
            )

    def _ordering(self, order: ServingOrder | None) -> Ordering | None:
        return None if order is None else Ordering(order, self._replicas)

    def _ask_a_replica(self, question: str, *arguments: Any) -> Any:
        def ask() -> Future[Any]:
            for standing in self._loop.snapshot().replicas:
                if standing.state is ReplicaState.READY:
                    return self._transport.ask(standing.id, question, *arguments)
            raise ReplicaError(f"no replica is ready to be asked for {question}; ask again when one is")

        try:
            return self._on_driver_thread(ask).result(ANSWER_TIMEOUT_S)
        except AnswerTimeoutError as error:
            raise ReplicaError(f"no replica answered {question} within {ANSWER_TIMEOUT_S:g} s") from error

    def _on_driver_thread(self, do: Callable[[], T]) -> T:
        self.check_open()
        done: Future[T] = Future()
        self._inbox.put(_Errand(do=do, done=done))
        if self._over is not None:
            self._end_what_is_left()
        try:
            return done.result(ANSWER_TIMEOUT_S)
        except AnswerTimeoutError as error:
            raise InvariantError(f"the driver thread did not answer within {ANSWER_TIMEOUT_S:g} s") from error

    # --- on the driver thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                found = self._wait()
                with self._turn:
                    self._turn_of = threading.get_ident()
                    self._take(self._inbox.collect(found))
                    self._loop.tick()
                if self._replicas.first_ready_s is not None:
                    self._first_ready.set()
                if self._lender_error is not None:
                    raise self._lender_error
            self._over = ReplicaError("the model was closed; compile it again to infer")
        except OvrayError as error:
            self._over = self._transport.explain(error)
        except Exception as error:  # noqa: BLE001 (whoever waits must hear of a bug in here)
            self._over = InvariantError(f"the driver thread ended with {type(error).__name__}: {error}")
            self._over.__cause__ = error
        finally:
            self._end_what_is_left()
            if self.reporter is not None:
                self.reporter.close(self._read(self._loop.snapshot()))
            self._replicas.close()
            self._transport.close()
            self._let_go()
            self._write_trace()

    def _wait(self) -> Ready:
        self._sleeps_until_s = self._loop.due_s
        if not self._has_had_guest:
            return self._inbox.wait(self._loop.due_in_s, lambda: self._has_small_to_do)
        # Also while no guest is there and nothing under way: who infers one by one is likely to come again.
        self._inbox.wait_aside(
            self._loop.due_in_s,
            lambda: self._has_small_to_do or not (self._guest.locked() or self._loop.is_idle),
        )
        self._has_had_guest = self._guest.locked()
        return []

    def _take(self, notes: Sequence[Any]) -> None:
        calls = [note for note in notes if isinstance(note, Call)]
        if calls:
            if self._has_small_to_do:
                self._submit_small()  # before those that came after them
            self._loop.submit(calls)
        replied = [note for note in notes if isinstance(note, Replied)]
        if replied:
            self._loop.take_replies(replied)
        if self._has_small_to_do:
            self._submit_small()
        for note in notes:
            if not isinstance(note, (Call, Replied)):
                self._take_note(note)

    def _take_note(self, note: Any) -> None:
        if isinstance(note, events.RequestCancelled):
            self._loop.cancel(note)
        elif isinstance(note, _Errand):
            _carry_out(note)
        elif isinstance(note, _Closing):
            self._closing = True
        elif isinstance(note, PoolRearranged):
            self._loop.rearrange(note.wanted, self._ordering(note.order))
        elif isinstance(note, PoolEnded):
            raise note.error
        elif callable(note):
            note()  # a transport's, which touches its sockets during a turn only
        else:
            self._loop.take(note)

    def _trace_request(self, call: Call, how: Ended, now_s: float) -> None:
        work = work_of_request(call, how, now_s)
        if self.trace is not None:
            self.trace.add(work)
        if self.spans is not None:
            self.spans.add(work, call.context)

    def _write_trace(self) -> None:
        if self.trace is not None:
            try:
                self.trace.write()
            except OSError as error:
                _log.error("the trace cannot be written: %s", error)

    def _report(self, snapshot: Snapshot) -> None:
        if self.reporter is not None and self.reporter.is_due:
            self.reporter.tell(self._read(snapshot))

    def _read(self, snapshot: Snapshot) -> Reading:
        counted = self._loop.meter.copy()
        return Reading(
            now_s=snapshot.now_s,
            replicas=read_replicas(self._replicas, snapshot, counted),
            elsewhere=counted.get(None, ReplicaMeter()),
            accepted=self._room.accepted,
            rejected=self._room.rejected,
            waiting=snapshot.requests_waiting,
        )

    def _end_what_is_left(self) -> None:
        """Tells everybody who still waits for something that it will not come."""
        if self._turn.locked() and self._turn_of == threading.get_ident():
            return  # in the middle of it; comes here again when its turn is over
        error = self._over or ReplicaError("the driver thread has ended")
        with self._turn:
            self._turn_of = threading.get_ident()
            self._loop.end_all(error)
            self._loop.refuse_small(_all_of(self._small), error)
            for note in self._inbox.get_all(0.0):
                if isinstance(note, Call):
                    self._loop.refuse(note, error)
                elif isinstance(note, _Errand):
                    note.done.set_exception(error)

    # --- on whichever thread has its turn -------------------------------------------------------------------

    @property
    def _has_small_to_do(self) -> bool:
        return bool(self._small) and not self._loop.has_enough(len(self._small))

    def _hand_over(self, call: Call, size_bytes: int) -> None:
        """Has a request taken in: on this thread if nobody drives now, so that none is woken; else by who does."""
        # Those that could be joined are better found together, and what others left before comes before.
        if size_bytes <= BUNDLE_BYTES or self._inbox.has_notes or not self._turn.acquire(blocking=False):
            self._inbox.put(call)
            return
        self._drive(lambda: self._loop.submit((call,)))
        # A driver thread that left the sockets to a guest may be waiting for notes only.
        self._inbox.wake() if self._has_had_guest else self._wake_if_due()

    def _lend_a_hand(self) -> None:
        """Does the driver thread's work on small requests on this thread, unless somebody is driving now."""
        while self._small and self._loop.is_idle and self._turn.acquire(blocking=False):
            self._drive(self._submit_small)
            if self._lender_error is not None:
                return
        self._wake_if_due()

    def _drive(self, do: Callable[[], None]) -> None:
        """Uses the turn, which this thread has, and gives it back."""
        with HeldBack():
            try:
                self._turn_of = threading.get_ident()
                self._try(do)
            finally:
                self._turn.release()

    def _wake_if_due(self) -> None:
        """Wakes the driver thread where a turn that was used on another left it something to do earlier."""
        if self._has_small_to_do or self._loop.due_s < self._sleeps_until_s:
            self._inbox.wake()

    def _wait_as_guest(self, request: SmallRequest) -> None:
        self._has_had_guest = True
        while not request.is_over and self._over is None and self._lender_error is None:
            found = self._inbox.wait(_LOOK_S, lambda: self._has_small_to_do)
            with HeldBack(), self._turn:
                self._turn_of = threading.get_ident()
                self._try(partial(self._take_replies, found))
            if self._inbox.has_notes:
                self._inbox.wake()

    def _take_replies(self, found: Ready) -> None:
        """Takes the replies that are there, and leaves all else that was said to the driver thread."""
        self._inbox.call_back(found)
        while (note := self._inbox.next_of(Replied)) is not None:
            self._loop.take_replies((note,))
        if self._has_small_to_do:
            self._submit_small()

    def _try(self, do: Callable[[], None]) -> None:
        """Does something of the driver thread's on another thread; what goes wrong with it is not the caller's."""
        try:
            do()
        except BaseException as error:  # noqa: BLE001 (whoever waits must hear of it, not this caller)
            self._lender_error = InvariantError(
                f"a thread that drove the pool was stopped by {type(error).__name__}: {error}"
            )
            self._lender_error.__cause__ = error
            self._inbox.wake()

    def _submit_small(self) -> None:
        left = taken = _all_of(self._small)
        try:
            left = self._loop.submit_small(taken)
        finally:
            # All of them, where something went wrong: then those that wait are told.
            self._small.extendleft(reversed(left))


def _carry_out(errand: _Errand) -> None:
    try:
        errand.done.set_result(errand.do())
    except OvrayError as error:
        errand.done.set_exception(error)


def _all_of(requests: deque[SmallRequest]) -> list[SmallRequest]:
    """Takes out all that there are; whoever has the turn is the only one to take."""
    return [requests.popleft() for _ in range(len(requests))]


_open_pools: "weakref.WeakSet[RequestPool]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Ends replicas when the interpreter ends, requests in flight or not."""
    for pool in list(_open_pools):
        pool.close()
