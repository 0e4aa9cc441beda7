"""Serves requests from any thread over a set of replicas: the way in.

May not enter: threads and turns (driving.py), what becomes of a request (request_loop.py), decisions (core), Ray
(transport.py), OpenVINO's objects (runtime/).
"""

import atexit
import itertools
import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

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
from ovray.driver.bundles import Bundles
from ovray.driver.calls import Call, Caller, Ended
from ovray.driver.carriage import Carriage
from ovray.driver.driving import ANSWER_TIMEOUT_S, Driving
from ovray.driver.lifecycle import ReplicaSet, Upkeep
from ovray.driver.messages import ReplicaStart
from ovray.driver.meter import ReplicaMeter
from ovray.driver.reading import Reading, read_replicas
from ovray.driver.request_loop import RequestLoop
from ovray.driver.room import Room
from ovray.driver.small_requests import SmallRequest
from ovray.driver.telling import Telling
from ovray.driver.transport import Inbox
from ovray.errors import ReplicaError
from ovray.replica.envelope import TensorShape
from ovray.replica.workload import ReplicaReport

T = TypeVar("T")

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
        self._loop.on_look = self._look
        self._loop.order_by(order)
        self._driving = Driving(self._inbox, self._loop, self._transport.explain, self._end)
        #: Hears of what is done here; may be set until ``start``.
        self.telling = Telling()
        self._request_ids = itertools.count()
        self._pid = os.getpid()

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
        self.telling.start()
        if self.telling.wants_each_request:
            self._loop.on_ended = self.telling.ended
        self._driving.start()
        while not self._driving.first_ready.wait(_LOOK_S):
            self.check_open()

    def submit(  # noqa: PLR0913 (all but the first two are for few requests)
        self,
        tensors: Sequence[NDArray[Any]],
        *,
        ended: Callable[[Ended], None],
        rows: int = 1,
        priority: int = 0,
        deadline_s: float | None = None,
        pinned_to: str | None = None,
        shapes: tuple[TensorShape, ...] | None = None,
        caller: Caller = Caller.GOES_ON,
    ) -> RequestId:
        """Takes a request; waits while the pool has no room for it.

        Args:
            tensors: the inputs in the order of the model's ports; their bytes are taken before this returns.
            ended: is called exactly once, by whoever drives: it must be quick and must not wait.
            rows: how much work this is.
            priority: higher goes first.
            deadline_s: seconds from now after which it is not started any more; ``None`` is no deadline.
            pinned_to: a replica's id or a ``host/device``; ``None`` is any.
            shapes: of the tensors in elements, where a type takes less than a byte; ``None``: the arrays' own.
            caller: one that waits has to call ``wait_for`` next.

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

        call = Call(asked=asked, tensors=taken, ended=leave, submitted_s=submitted_s, shapes=shapes)
        if self.telling.spans is not None:
            # Each caller gets a span of its own, so that each request has to stay one.
            call.context, call.may_be_joined = self.telling.spans.here(), False
        self._driving.submit(call, size_bytes, caller)
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
        self._let_in(request)
        self._driving.submit_small(request)

    def infer_small(self, request: SmallRequest) -> None:
        """Takes a request as ``submit_small``, and may return only when it has ended.

        Where it is the only one under way, this thread waits at the sockets in the driver thread's place, so that
        no thread has to be woken for its answer but the one that wants it.
        """
        self._let_in(request)
        self._driving.infer_small(request)

    def wait_for(self, has_ended: Callable[[], bool]) -> None:
        """Waits until a request has ended that ``submit`` took, if this thread can wait for it better than others.

        Where it is the only one under way this thread does the driver thread's waiting, as in ``infer_small``;
        else it returns at once.
        """
        self._driving.wait_for(has_ended)

    def _let_in(self, request: SmallRequest) -> None:
        self.check_open()
        self._room.enter(request.kind.size_bytes, None, self.check_open)
        request.submitted_s = time.monotonic()

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
        self._on_driver_thread(lambda: self._loop.rearrange(wanted, order, upkeep))

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
        if self._pid == os.getpid() and self._driving.has_started:
            self._driving.close()

    def check_open(self) -> None:
        """Raises where nothing can be asked of this pool any more.

        Raises:
            ReplicaError: the pool is closed, broken, or belongs to the process that this one was forked from.
        """
        if self._driving.over is not None:
            raise self._driving.over
        if self._pid != os.getpid():
            raise ReplicaError(
                "this process was forked from the one that compiled the model, and its replicas answer only there;"
                " compile in the child, or start it with the 'spawn' method of multiprocessing"
            )

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
        return self._driving.do(do)

    # --- on the driver thread -------------------------------------------------------------------------------

    def _end(self) -> None:
        self.telling.stop(lambda: self._read(self._loop.snapshot()))
        self._replicas.close()
        self._transport.close()
        self._let_go()
        self.telling.write_trace()

    def _look(self, snapshot: Snapshot) -> None:
        self.telling.look(lambda: self._read(snapshot))

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


_open_pools: "weakref.WeakSet[RequestPool]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Ends replicas when the interpreter ends, requests in flight or not."""
    for pool in list(_open_pools):
        pool.close()
