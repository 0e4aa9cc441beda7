"""A request that was sent to two replicas, since the first of them was silent: by a clock of the test's own."""

from typing import Any

import numpy as np

from ovray.core.events import RequestSubmitted
from ovray.core.ids import DispatchId, ReplicaId, RequestId
from ovray.core.scheduler import Scheduler
from ovray.driver.bundles import Bundles
from ovray.driver.calls import Call, Ended
from ovray.driver.lifecycle import ReplicaSet
from ovray.driver.messages import Replied, Started
from ovray.driver.request_loop import RequestLoop
from ovray.replica.envelope import Envelope, Reply
from tests.unit.answering_transport import a_report
from tests.unit.test_request_pool import some_starts

FIRST, SECOND = (start.spec.id for start in some_starts(2))


class Noted:
    """Is ``Transport`` that only notes what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[ReplicaId, list[int]]] = []
        self.cancelled: list[tuple[ReplicaId, DispatchId]] = []

    def start(self, *_: Any) -> None:
        """Waits to be told by the test."""

    def send_requests(self, replica: ReplicaId, envelope: Envelope) -> None:
        self.sent.append((replica, [request.dispatch for request in envelope.requests]))

    def cancel(self, replica: ReplicaId, dispatch: DispatchId) -> None:
        self.cancelled.append((replica, dispatch))


class Stage:
    """Is a loop over two replicas, the second of which comes later."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.transport = Noted()
        self.ends: list[Ended] = []
        transport: Any = self.transport
        replicas = ReplicaSet(transport, lambda: self.now_s)
        bundles = Bundles(lambda _: None, 2, lambda _bytes, _requests: None)
        self.loop = RequestLoop(Scheduler(), transport, replicas, "tests", bundles, lambda: self.now_s)
        replicas.start(some_starts(2))
        self.loop.take(Started(replica=FIRST, report=a_report()))

    def ask(self, number: int) -> None:
        asked = RequestSubmitted(request=RequestId(number))
        call = Call(asked=asked, tensors=(np.zeros(1),), ended=self.ends.append, submitted_s=self.now_s)
        self.loop.submit([call])

    def answer(self, replica: ReplicaId, dispatch: int) -> None:
        reply = Reply(
            dispatch=dispatch, outputs=(np.zeros(1),), error=None, queued_s=0.0, infer_s=0.001, batch_rows=1
        )
        self.loop.take_replies([Replied(replica=replica, replies=(reply,))])


def test_a_request_ends_at_the_replica_that_answered_and_not_at_the_one_that_had_it_last() -> None:
    stage = Stage()
    stage.ask(0)
    stage.now_s = 0.01
    stage.answer(FIRST, 0)
    stage.ask(1)

    # 1. the first is silent   2. the second gets a copy   3. the first answers after all   4. so does the second
    stage.loop.take(Started(replica=SECOND, report=a_report()))
    stage.now_s = 5.0
    stage.loop.tick()
    copied = stage.transport.sent[-1]
    stage.answer(FIRST, 1)
    stage.answer(SECOND, 2)

    assert copied == (SECOND, [2])
    assert [ended.replica for ended in stage.ends] == [FIRST, FIRST]
    assert stage.transport.cancelled == [(SECOND, DispatchId(2))]
