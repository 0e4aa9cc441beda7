"""Carries requests between callers and replicas: the scheduler's commands become messages, the replicas' messages
its events.

May not enter: threads, waiting (driving.py), decisions (core), Ray (transport.py).  Everything here happens on
one thread at a time, the one that has the pool's turn.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from ovray.core import commands, events
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.ledger import ReplicaState
from ovray.core.scheduler import Scheduler
from ovray.core.serving_order import ServingOrder
from ovray.core.snapshot import Snapshot
from ovray.driver import messages
from ovray.driver.bundles import Bundles, bundle_rule
from ovray.driver.calls import Call, Ended
from ovray.driver.lifecycle import ReplicaSet, Upkeep
from ovray.driver.meter import RequestMeter
from ovray.driver.ordering import Ordering
from ovray.driver.small_requests import SmallRequest
from ovray.driver.transport import Transport
from ovray.errors import DataError, OvrayError, ReplicaError
from ovray.replica.envelope import Envelope, Reply, Request

_log = logging.getLogger(__name__)

#: How often silent replicas are looked for, messages or not.
TICK_S = 0.25

#: Requests to be joined that are worth having in flight: twice what four large bundles hold.
_JOINED_IN_FLIGHT = 512

#: Of more replicas than these the replies come together by themselves, and a look at each would take longer.
_GATHERED_FROM = 16


class RequestLoop:
    """Owns every request that has not ended."""

    def __init__(
        self,
        scheduler: Scheduler,
        transport: Transport,
        replicas: ReplicaSet,
        client: str,
        bundles: Bundles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores.

        Args:
            scheduler: decides.
            transport: carries what is sent.
            replicas: those that serve.
            client: what replicas know this driver by.
            bundles: joins requests; what it wants tried alone comes back by ``submit``.
            clock: seconds, on any clock that does not go back.
        """
        self._scheduler = scheduler
        self._transport = transport
        self._replicas = replicas
        self._client = client
        #: Says which replicas are to serve; ``None``: all alike.
        self._ordering: Ordering | None = None
        self._clock = clock
        self._bundles = bundles
        #: Counts what becomes of requests.
        self.meter: RequestMeter = bundles.meter
        #: Is shown each request, or bundle, that has ended, and when; ``None`` where nobody traces.
        self.on_ended: Callable[[Call, Ended, float], None] | None = None
        #: Is shown how things stand whenever silent replicas are looked for.
        self.on_look: Callable[[Snapshot], None] = _look_away
        #: Where requests are joined, how many bundles give every replica something to do.
        self._few = 0
        #: And with how many nobody has to hurry to send more: the next answer is soon enough.
        self._enough = 0
        #: Whether replies are left alone so that they come together.
        self._may_gather = False
        self._calls: dict[RequestId, Call] = {}
        #: Replicas of which it was said that they could not start.
        self._left_out: set[ReplicaId] = set()
        #: What replicas said of the dispatches that the scheduler is being told of, and the error that it is being
        #: told of where it is not a device's: the scheduler carries neither tensors nor exceptions.
        self._replies: dict[DispatchId, tuple[ReplicaId, Reply]] = {}
        self._own_error: Exception | None = None
        self._wake_at_s: float | None = None
        self._look_at_s = 0.0

    @property
    def due_s(self) -> float:
        """When ``tick`` has something to do, on the loop's clock."""
        return self._look_at_s if self._wake_at_s is None else min(self._look_at_s, self._wake_at_s)

    @property
    def due_in_s(self) -> float:
        """Seconds until then."""
        return max(0.0, self.due_s - self._clock())

    def submit(self, calls: Sequence[Call]) -> None:
        """Takes in requests."""
        formed = self._bundles.form(calls)
        self._calls.update((call.asked.request, call) for call in formed)
        self._feed_all([call.asked for call in formed])

    @property
    def joined_in_flight(self) -> int:
        """Says how many requests keep every replica busy where they are joined; 0 where they are not."""
        rule = self._bundles.rule
        return 0 if rule is None else min(2 * self._enough * rule.max_rows, _JOINED_IN_FLIGHT)

    def submit_small(self, requests: Sequence[SmallRequest]) -> list[SmallRequest]:
        """Takes in small requests; returns those that are better offered again when the next answer has come."""
        under_way = len(self._calls)
        # At least one, or whoever asks would ask again at once.
        least = max(1, self._few - under_way)
        formed, left = self._bundles.form_small(requests, least, max(least, self._enough - under_way))
        self._calls.update((call.asked.request, call) for call in formed)
        self._feed_all([call.asked for call in formed])
        return left

    def gathering_s(self, gathered_s: float) -> float:
        """Says for how long replies may be left alone now, after they were for ``gathered_s`` seconds."""
        return self._scheduler.gathering_s(self._clock(), gathered_s) if self._may_gather else 0.0

    @property
    def is_first_ready(self) -> bool:
        """Whether a replica is ready, or was once."""
        return self._replicas.first_ready_s is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._calls

    @property
    def has_one(self) -> bool:
        """Whether one request, or bundle, is under way."""
        return len(self._calls) == 1

    def has_enough(self, waiting: int) -> bool:
        """Says whether so many small requests may wait for the next answer, to be joined with what comes by then.

        Because each replica has a bundle, and those that wait would be a small one; or all have enough.
        """
        rule = self._bundles.rule
        under_way = len(self._calls)
        return (
            rule is not None
            and under_way >= self._few
            and (under_way >= self._enough or 2 * waiting < rule.max_rows)
        )

    def cancel_small(self, request: SmallRequest) -> None:
        """Ends a small request with an error, unless it has ended."""
        number = self._bundles.cancel_small(request)
        if number is not None:
            self.feed(events.RequestCancelled(request=number))

    def refuse_small(self, requests: Iterable[SmallRequest], error: OvrayError) -> None:
        """Ends small requests that were never taken in."""
        for request in requests:
            self._bundles.end_small(request, error)

    def cancel(self, cancelled: events.RequestCancelled) -> None:
        """Ends a request with an error, unless it has ended."""
        if not self._bundles.cancel(cancelled.request):
            self.feed(cancelled)

    def take(self, message: messages.Message) -> None:
        """Takes in what a replica said."""
        match message:
            case messages.Replied():
                self.take_replies((message,))
            case messages.Refused():
                self._take_failure(message.replica, message.dispatch, message.error)
            case messages.Answered():
                raise AssertionError(f"requests are answered by replies, not by {message!r}")
            case _:
                if isinstance(message, messages.StartFailed):
                    self._say_who_is_left_out(message.replica, message.error)
                for event in self._replicas.take(message):
                    self.feed(event)
                self.order_replicas()

    def _say_who_is_left_out(self, replica: ReplicaId, error: Exception) -> None:
        if replica not in self._left_out:
            self._left_out.add(replica)
            _log.warning("%s could not start and is left out: %s", replica, error)

    def tick(self) -> None:
        """Does what is due by the clock.

        Raises:
            OvrayError: nobody works, nor is going to.
        """
        now_s = self._clock()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + TICK_S
            snapshot = self._scheduler.snapshot()
            for event in self._replicas.look_after(snapshot):
                self.feed(event)
            self.order_replicas()
            self._bundles.rule = bundle_rule(snapshot, self._replicas.reports, self._bundles.times)
            self._judge_load(snapshot)
            self._end_pinned_to_nobody()
            error = self._replicas.error_if_none_is_left(snapshot)
            if error is not None:
                raise error
            self.on_look(snapshot)
        if self._wake_at_s is not None and now_s >= self._wake_at_s:
            self._wake_at_s = None
            self.feed(events.TimerFired())

    def _judge_load(self, snapshot: Snapshot) -> None:
        reports = self._replicas.reports
        ready = [
            reports[standing.id].engine.nireq
            for standing in snapshot.replicas
            if standing.state is ReplicaState.READY and standing.id in reports
        ]
        self._few, self._enough = len(ready), 2 * sum(ready)
        # For the caches of cores that also infer.  Requests that are joined would go in fewer and smaller bundles.
        self._may_gather = (
            self._bundles.rule is None
            and len(ready) <= _GATHERED_FROM
            and any(spec.openvino_device == "CPU" for spec in self._replicas.specs)
        )

    def order_replicas(self) -> None:
        """Has the scheduler prefer what is to be preferred as replicas stand now."""
        if self._ordering is not None:
            for event in self._ordering.look(self._scheduler.snapshot()):
                self.feed(event)

    def order_by(self, order: ServingOrder | None) -> None:
        """Says which replicas are to serve as they come and go; ``None``: all alike."""
        self._ordering = None if order is None else Ordering(order, self._replicas)

    def rearrange(
        self, wanted: Sequence[messages.ReplicaStart], order: ServingOrder | None, upkeep: Upkeep | None = None
    ) -> None:
        """Has these replicas and no others from now on; those that are left out finish what they hold.

        Args:
            wanted: in the order in which they are preferred.
            order: which of them are to serve as they come and go; ``None``: all alike.
            upkeep: how they are looked after; ``None`` is as before.
        """
        self.order_by(order)
        if order is None:
            self.feed(events.PrioritiesChanged(devices=None))
        self._left_out.clear()
        for event in self._replicas.rearrange(wanted, upkeep):
            self.feed(event)
        self.order_replicas()

    def hold_back(self) -> None:
        """Gives no replica anything more; what they hold is finished."""
        self._ordering = None
        self.feed(events.PrioritiesChanged(devices=()))

    @property
    def held(self) -> int:
        """Counts the requests with replicas that can be expected to answer."""
        return sum(
            replica.requests_outstanding
            for replica in self._scheduler.snapshot().replicas
            if not replica.is_stalled
        )

    def set_priorities(self, devices: Sequence[str]) -> None:
        """Prefers devices in this order from now on, whatever becomes of them."""
        self._ordering = None
        self.feed(events.PrioritiesChanged(devices=tuple(devices)))

    def _end_pinned_to_nobody(self) -> None:
        """Ends requests that only replicas may run that were dismissed: nobody else would ever take them."""
        if not self._replicas.has_forgotten_some:
            return
        there = {name for spec in self._replicas.specs for name in (str(spec.id), f"{spec.host}/{spec.device}")}
        for call in list(self._calls.values()):
            pin = call.asked.pinned_to
            if pin is not None and pin not in there and call.asked.request in self._calls:
                self._own_error = ReplicaError(
                    f"the request was for {pin} alone, which was taken out of the model's devices; it was not run"
                )
                self.feed(events.RequestCancelled(request=call.asked.request))
                self._own_error = None

    def feed(self, event: events.Event) -> None:
        """Tells the scheduler, and carries out what it says."""
        self._feed_all((event,))

    def _feed_all(self, happened: Sequence[events.Event]) -> None:
        for command in self._scheduler.handle_all(happened, self._clock()):
            self._carry_out(command)

    def snapshot(self) -> Snapshot:
        return self._scheduler.snapshot()

    def end_all(self, error: OvrayError) -> None:
        """Ends every request that has not ended."""
        for request in list(self._calls):
            self._end(request, error)

    def refuse(self, call: Call, error: OvrayError) -> None:
        """Ends a request that was never taken in."""
        self._calls[call.asked.request] = call
        self._end(call.asked.request, error)

    # --- messages become events -----------------------------------------------------------------------------

    def take_replies(self, messages_: Sequence[messages.Replied]) -> None:
        """Takes in what replicas answered."""
        completed: list[events.Event] = []
        for message in messages_:
            for reply in message.replies:
                dispatch = DispatchId(reply.dispatch)
                if reply.error is None:
                    self._replies[dispatch] = message.replica, reply
                    completed.append(events.Completed(replica=message.replica, dispatch=dispatch))
        if completed:
            self._feed_all(completed)
            self._replies.clear()
        for message in messages_:
            for reply in message.replies:
                if reply.error is not None:
                    self._take_failure(message.replica, DispatchId(reply.dispatch), reply.error)

    def _take_failure(self, replica: ReplicaId, dispatch: DispatchId, error: Exception) -> None:
        is_input = isinstance(error, DataError)
        cause = events.FailureCause.INPUT if is_input else events.FailureCause.DEVICE
        text = str(error) if is_input else f"{replica}: {error}"
        self._own_error = error if is_input else None
        self.feed(events.Failed(replica=replica, dispatch=dispatch, cause=cause, message=text))
        self._own_error = None

    # --- commands become messages ---------------------------------------------------------------------------

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.SendEnvelope():
                self._send(command)
            case commands.AcceptRequest():
                pass  # who submits has waited for room already
            case commands.DeliverResult():
                replica, reply = self._replies[command.dispatch]
                # Not always who had it last: a copy may have been sent since.
                self._calls[command.request].replica = replica
                self._end(command.request, reply)
            case commands.DeliverError():
                self._end(command.request, self._own_error or ReplicaError(command.message))
            case commands.CancelDispatch():
                self._transport.cancel(command.replica, command.dispatch)
            case commands.ProbeReplica():
                self._transport.probe(command.replica)
            case commands.ReleaseReplica():
                self._replicas.released(command.replica)
            case commands.WakeAt():
                self._wake_at_s = command.at_s
            case _:
                raise AssertionError(f"requests need no {command!r}")

    def _send(self, command: commands.SendEnvelope) -> None:
        now_s = self._clock()
        sent, requests = [], 0
        for dispatch, request in command.requests:
            call = self._calls[request]
            call.sent_s, call.replica = now_s, command.replica
            sent.append(Request(dispatch=dispatch, tensors=call.tensors, shapes=call.shapes))
            requests += call.requests
        self.meter.sent(command.replica, requests)
        self._transport.send_requests(command.replica, Envelope(client=self._client, requests=tuple(sent)))

    def _end(self, request: RequestId, how: Reply | Exception) -> None:
        call = self._calls.pop(request)
        now_s = self._clock()
        reply = how if isinstance(how, Reply) else None
        ended = Ended(
            outputs=None if reply is None else reply.outputs,
            error=how if isinstance(how, Exception) else None,
            replica=call.replica,
            total_s=now_s - call.submitted_s,
            queued_s=(now_s if call.sent_s is None else call.sent_s) - call.submitted_s,
            replica_queued_s=0.0 if reply is None else reply.queued_s,
            infer_s=0.0 if reply is None else reply.infer_s,
            batch_rows=0 if reply is None else reply.batch_rows,
            shapes=None if reply is None else reply.shapes,
        )
        if call.requests == 1:
            self.meter.ended(ended)
        if self.on_ended is not None:
            self.on_ended(call, ended, now_s)
        self._bundles.times.note(ended)
        call.ended(ended)


def _look_away(_: Snapshot) -> None:
    """Is shown what nobody asked for."""
