"""Requests of few bytes are joined as bytes: each ends once, with its own rows, whatever becomes of its bundle."""

import random
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ovray.core.ids import ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.driver.arena import ProcessStorage
from ovray.driver.calls import Ended
from ovray.driver.carriage import Carriage
from ovray.driver.pool import RequestPool
from ovray.driver.room import Room
from ovray.driver.small_requests import Joined, Kind, SmallRequest
from ovray.driver.transport import Inbox
from ovray.errors import DataError, OvrayError, ReplicaError
from tests.unit.answering_transport import AnsweringTransport, a_report
from tests.unit.test_request_pool import some_starts
from tests.waiting import DEADLINE_S, until


class _Small(SmallRequest):
    """A row of three times one value."""

    __slots__ = ("told", "value")

    def __init__(self, kind: Kind, value: float, ends: "_Ends") -> None:
        self.kind = kind
        self.value = value
        self.packed = (np.full(kind.shapes[0], value).tobytes(),)
        self.ends = ends
        self.is_over = self.is_taken = False
        self.number = None
        self.told: list[Ended] = []


class _Ends:
    """Writes ends down where they belong."""

    def ended(self, request: _Small, how: Ended) -> None:
        request.told.append(how)

    def ended_together(self, requests: Sequence[_Small], places: Sequence[int], whole: Joined) -> None:
        for request, place in zip(requests, places, strict=True):
            request.told.append(whole.ended(place, request.submitted_s))


class _Serving:
    """A pool whose replicas join up to ``max_joined_rows``."""

    def __init__(self, replicas: int, *, max_joined_rows: int = 32, max_requests: int = 5000) -> None:
        inbox: Inbox = Inbox()
        self.transport = AnsweringTransport(inbox)
        self.transport.report = a_report(max_joined_rows=max_joined_rows)
        carriage = Carriage(client="tests", inbox=inbox, transport=self.transport, storage=ProcessStorage())
        room = Room(max_requests=max_requests, max_bytes=1 << 24)
        self.pool = RequestPool(Scheduler(), carriage, room, lambda: None)
        self.pool.start(some_starts(replicas))
        until(lambda: len(self.pool.snapshot().reports) == replicas)
        if max_joined_rows > 1:
            until(lambda: self.pool._loop._bundles.rule is not None)
        self.kinds = {
            rows: Kind(dtypes=(np.dtype(float),), shapes=((rows, 3),), rows=rows, size_bytes=rows * 24)
            for rows in (1, 2, 3, 40)
        }
        self.ends = _Ends()
        self.asked: list[_Small] = []

    def ask(self, value: float, rows: int = 1, how: Callable[[_Small], None] | None = None) -> _Small:
        request = _Small(self.kinds[rows], value, self.ends)
        self.asked.append(request)
        (how or self.pool.submit_small)(request)
        return request

    def sent_rows(self) -> list[int]:
        return [len(request.tensors[0]) for _, request in self.transport.received]

    def end(self) -> None:
        assert self.pool.drain(DEADLINE_S)
        self.pool.close()

    def check(self, but: Sequence[_Small] = ()) -> None:
        for request in self.asked:
            if request in but:
                continue
            (ended,) = request.told
            assert ended.error is None
            assert ended.outputs is not None
            assert ended.outputs[0].tolist() == [[2 * request.value] * 3] * request.kind.rows
            assert ended.total_s >= ended.queued_s >= 0


def test_what_comes_while_enough_is_under_way_travels_together_and_gets_its_own_rows() -> None:
    serving = _Serving(1)
    serving.transport.hold.set()

    for value in range(100):
        serving.ask(float(value))
    serving.transport.hold.clear()
    serving.end()

    assert sum(serving.sent_rows()) == 100
    assert max(serving.sent_rows()) == 32
    serving.check()


def test_a_request_that_finds_an_infer_request_idle_is_sent_at_once_by_who_asks() -> None:
    serving = _Serving(1)
    serving.transport.hold.set()

    serving.ask(1.0)

    # Also where the driver thread is at something else: then it sends it when it is done with that.
    until(lambda: serving.sent_rows() == [1])
    serving.transport.hold.clear()
    serving.end()
    serving.check()


@pytest.mark.parametrize("max_joined_rows", [1, 32])
def test_rows_of_all_sizes_from_many_threads_come_back_once_to_who_asked_while_replicas_die(
    max_joined_rows: int,
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    serving = _Serving(4, max_joined_rows=max_joined_rows, max_requests=64)

    def ask(thread: int) -> None:
        chance = random.Random(seed + thread)
        for number in range(thread, 2000, 4):
            serving.ask(float(number), chance.choice([1, 1, 1, 2, 3, 40]))

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for victim in (1, 3):
        until(lambda victim=victim: any(name.endswith(f"#{victim}") for name, _ in serving.transport.received))
        serving.transport.kill(ReplicaId(f"h/CPU.0#{victim}"))
    for thread in threads:
        thread.join(DEADLINE_S)
    serving.end()

    assert len(serving.asked) == 2000
    serving.check()


def test_an_input_that_is_to_blame_does_not_speak_for_those_beside_it() -> None:
    serving = _Serving(1)
    serving.transport.hold.set()
    for number in range(40):
        serving.ask(float(number))
    bad = serving.ask(float("nan"))
    for number in range(40):
        serving.ask(float(number))
    serving.transport.hold.clear()
    serving.end()

    (ended,) = bad.told
    assert isinstance(ended.error, DataError)
    serving.check(but=[bad])


def test_poison_ends_with_its_own_error_and_those_beside_it_are_served() -> None:
    serving = _Serving(6)
    serving.transport.poison = 17.0
    serving.transport.hold.set()
    requests = [serving.ask(float(number)) for number in range(60)]
    serving.transport.hold.clear()
    assert serving.pool.drain(DEADLINE_S)
    losses = serving.pool.snapshot().scheduler.counters["losses"]
    serving.pool.close()

    (ended,) = requests[17].told
    assert isinstance(ended.error, ReplicaError)
    assert "poison" in str(ended.error)
    assert losses == 3
    serving.check(but=[requests[17]])


def test_each_can_be_cancelled_wherever_it_is_and_the_others_go_on() -> None:
    serving = _Serving(1)
    serving.transport.hold.set()
    requests = [serving.ask(float(number)) for number in range(40)]
    cancelled = [requests[0], requests[20]]

    for request in cancelled:
        serving.pool.cancel_small(request)
    until(lambda: all(request.told for request in cancelled))
    serving.transport.hold.clear()
    serving.end()

    assert all("cancelled" in str(request.told[0].error) for request in cancelled)
    serving.check(but=cancelled)


def test_closing_ends_every_one_that_has_not_ended_once() -> None:
    serving = _Serving(1)
    serving.transport.hold.set()
    requests = [serving.ask(float(number)) for number in range(40)]

    serving.pool.close()

    assert [len(request.told) for request in requests] == [1] * 40
    assert all("closed" in str(request.told[0].error) for request in requests)
    with pytest.raises(OvrayError, match="closed"):
        serving.ask(1.0)


def test_threads_that_wait_for_each_answer_and_others_beside_them_lose_nothing() -> None:
    serving = _Serving(2)

    def infer(first: int) -> None:
        for number in range(first, first + 200):
            request = serving.ask(float(number), how=serving.pool.infer_small)
            until(lambda request=request: request.told)
            if number % 50 == 0:
                time.sleep(0.01)  # long enough for the others to be alone

    def submit() -> None:
        for number in range(300):
            serving.ask(float(number))
            if number % 30 == 0:
                time.sleep(0.01)

    threads = [threading.Thread(target=infer, args=(1000 * number,)) for number in range(2)]
    threads.append(threading.Thread(target=submit))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    serving.end()

    assert len(serving.asked) == 700
    serving.check()


def test_one_that_waits_for_an_answer_hears_of_the_end_of_its_replica_and_of_the_pool() -> None:
    serving = _Serving(2)
    serving.transport.hold.set()
    waiting = threading.Thread(target=serving.ask, args=(1.0,), kwargs={"how": serving.pool.infer_small})
    waiting.start()
    until(lambda: serving.transport.received)

    holder, _ = serving.transport.received[0]
    serving.transport.kill(holder)
    until(lambda: len(serving.transport.received) == 2)
    serving.pool.close()
    waiting.join(DEADLINE_S)

    (request,) = serving.asked
    (ended,) = request.told
    assert "closed" in str(ended.error)


def test_small_requests_go_before_a_larger_one_that_came_after_them() -> None:
    serving = _Serving(1, max_joined_rows=1)
    began, held = threading.Event(), threading.Event()
    serving.pool._inbox.put(lambda: began.set() or held.wait(DEADLINE_S))
    assert began.wait(DEADLINE_S)

    for number in range(20):
        serving.ask(float(number))
    serving.pool.submit([np.full((1, 3), 99.0)], ended=lambda _: None)
    held.set()
    serving.end()

    values = [request.tensors[0][0, 0] for _, request in serving.transport.received]
    assert values == [*map(float, range(20)), 99.0]
    serving.check()


def test_who_keeps_the_outputs_of_one_does_not_keep_them_all() -> None:
    outputs = (np.arange(32 * 4096, dtype=float).reshape(32, 4096),)
    how = Ended(
        outputs=outputs,
        error=None,
        replica=None,
        total_s=2.0,
        queued_s=1.0,
        replica_queued_s=0.0,
        infer_s=0.5,
        batch_rows=32,
    )
    whole = Joined(how, (0,), 1, submitted_s=5.0)

    part = whole.ended(3, submitted_s=4.0)

    assert part.outputs is not None
    assert part.outputs[0].base is None
    assert part.outputs[0].tolist() == outputs[0][3:4].tolist()
    assert (part.total_s, part.queued_s) == (3.0, 2.0)
