"""Small requests that wait together travel as one, and nobody can tell but by the clock."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ovray.core.ids import ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.driver.arena import ProcessStorage
from ovray.driver.bundles import RowTimes
from ovray.driver.calls import Ended
from ovray.driver.carriage import Carriage
from ovray.driver.pool import RequestPool
from ovray.driver.room import Room
from ovray.driver.transport import Inbox
from ovray.errors import DataError, ReplicaError
from tests.unit.answering_transport import AnsweringTransport, a_report
from tests.unit.test_request_pool import some_starts
from tests.waiting import DEADLINE_S, until


class _Serving:
    """A pool whose replicas join up to 32 rows."""

    def __init__(self, replicas: int) -> None:
        inbox: Inbox = Inbox()
        self.transport = AnsweringTransport(inbox)
        self.transport.report = a_report(max_joined_rows=32)
        carriage = Carriage(client="tests", inbox=inbox, transport=self.transport, storage=ProcessStorage())
        self.pool = RequestPool(Scheduler(), carriage, Room(max_requests=5000, max_bytes=1 << 24), lambda: None)
        self.pool.start(some_starts(replicas))
        until(lambda: len(self.pool.snapshot().reports) == replicas)
        self.ends: dict[int, list[Ended]] = {}

    def ask(self, number: int, value: float, rows: int = 1) -> None:
        tensor = np.full((rows, 3), value)
        self.ends[number] = []
        self.pool.submit([tensor], ended=self.ends[number].append, rows=rows)

    def ask_together(self, values: list[float]) -> None:
        """Asks so that all of it waits when the driver thread comes to it, under its place as its number."""
        with self.driver_thread_held():
            for number, value in enumerate(values):
                self.ask(number, value)

    @contextmanager
    def driver_thread_held(self) -> Iterator[None]:
        """Has all that is asked for in here wait when the driver thread comes to it."""
        began, held = threading.Event(), threading.Event()

        def hold() -> None:
            began.set()
            held.wait(DEADLINE_S)

        self.pool._inbox.put(hold)
        assert began.wait(DEADLINE_S)
        yield
        held.set()

    def wait_for_rule(self) -> None:
        until(lambda: self.pool._loop._bundles.rule is not None)

    def sent_rows(self) -> list[int]:
        return [len(request.tensors[0]) for _, request in self.transport.received]

    def end(self) -> None:
        assert self.pool.drain(DEADLINE_S)
        self.pool.close()

    def check(self, number: int, value: float, rows: int = 1) -> None:
        (ended,) = self.ends[number]
        assert ended.error is None
        assert ended.outputs is not None
        assert ended.outputs[0].tolist() == [[2 * value] * 3] * rows


def test_requests_that_wait_together_travel_together_and_get_their_own_rows() -> None:
    serving = _Serving(1)
    serving.wait_for_rule()

    serving.ask_together([float(value) for value in range(100)])
    serving.end()

    assert max(serving.sent_rows()) == 32
    assert sum(serving.sent_rows()) == 100
    for number in range(100):
        serving.check(number, float(number))


def test_rows_of_all_sizes_from_many_threads_come_back_to_who_asked() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    serving = _Serving(3)
    serving.wait_for_rule()
    rows = {number: random.Random(seed + number).choice([1, 1, 1, 2, 3, 40]) for number in range(2000)}

    def ask(thread: int) -> None:
        for number in range(thread, 2000, 4):
            serving.ask(number, float(number), rows[number])

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    serving.end()

    for number in range(2000):
        serving.check(number, float(number), rows[number])


def test_an_input_that_is_to_blame_does_not_speak_for_those_beside_it() -> None:
    serving = _Serving(1)
    serving.wait_for_rule()

    serving.ask_together([float("nan") if number == 17 else float(number) for number in range(40)])
    serving.end()

    assert 32 in serving.sent_rows()
    (ended,) = serving.ends.pop(17)
    assert isinstance(ended.error, DataError)
    for number in serving.ends:
        serving.check(number, float(number))


def test_poison_ends_with_its_own_error_after_as_many_replicas_as_it_would_take_alone() -> None:
    serving = _Serving(6)
    serving.wait_for_rule()
    serving.transport.poison = 17.0

    serving.ask_together([float(number) for number in range(40)])
    assert serving.pool.drain(DEADLINE_S)
    losses = serving.pool.snapshot().scheduler.counters["losses"]
    serving.pool.close()

    (ended,) = serving.ends.pop(17)
    assert isinstance(ended.error, ReplicaError)
    assert "poison" in str(ended.error)
    assert losses == 3
    for number in serving.ends:
        serving.check(number, float(number))


def test_a_request_in_a_bundle_can_be_cancelled_alone() -> None:
    serving = _Serving(1)
    serving.wait_for_rule()
    serving.transport.hold.set()
    requests = []
    with serving.driver_thread_held():
        for number in range(8):
            serving.ends[number] = []
            tensor = np.full((1, 3), float(number))
            requests.append(serving.pool.submit([tensor], ended=serving.ends[number].append))
    until(lambda: serving.sent_rows() == [8])

    serving.pool.cancel(requests[3])
    until(lambda: bool(serving.ends[3]))
    serving.transport.hold.clear()
    serving.end()

    (ended,) = serving.ends.pop(3)
    assert "cancelled" in str(ended.error)
    for number in serving.ends:
        serving.check(number, float(number))


@pytest.mark.parametrize("different", ["pin", "deadline", "priority", "shape", "type"])
def test_requests_that_differ_are_not_joined(different: str) -> None:
    serving = _Serving(1)
    serving.wait_for_rule()
    plain, other = np.zeros((1, 3)), np.zeros((1, 3))
    options: dict[str, object] = {}
    match different:
        case "pin":
            options = {"pinned_to": "h/CPU.0"}
        case "deadline":
            options = {"deadline_s": 1000.0}
        case "priority":
            options = {"priority": 1}
        case "shape":
            other = np.zeros((1, 4))
        case "type":
            other = np.zeros((1, 3), dtype=np.float32)
    with serving.driver_thread_held():
        serving.pool.submit([plain], ended=lambda _: None)
        serving.pool.submit([other], ended=lambda _: None, **options)  # type: ignore[arg-type]
    serving.end()

    assert serving.sent_rows() == [1, 1]


def test_nothing_is_joined_once_a_replica_is_there_that_does_not_join() -> None:
    serving = _Serving(1)
    serving.wait_for_rule()
    serving.transport.report = a_report()
    serving.pool._replicas.start(some_starts(2)[1:])
    until(lambda: serving.pool._loop._bundles.rule is None)

    serving.ask_together([0.0] * 10)
    serving.end()

    assert set(serving.sent_rows()) == {1}
    assert ReplicaId("h/CPU.0#1") in serving.pool._replicas.reports


def test_what_is_in_a_bundle_when_the_pool_is_closed_ends_with_the_pools_error() -> None:
    serving = _Serving(1)
    serving.wait_for_rule()
    serving.transport.hold.set()
    serving.ask_together([float(number) for number in range(20)])
    until(lambda: bool(serving.transport.received))

    serving.pool.close()

    assert {str(ended.error) for ends in serving.ends.values() for ended in ends} == {
        "the model was closed; compile it again to infer"
    }
    assert all(len(ends) == 1 for ends in serving.ends.values())


def test_what_the_device_itself_takes_says_how_much_is_joined_and_not_how_rarely_it_answers() -> None:
    serving = _Serving(1)
    (standing,) = serving.pool.snapshot().scheduler.replicas
    serving.pool.close()
    times, ended = (
        RowTimes(),
        {"outputs": (), "error": None, "total_s": 1.0, "queued_s": 0.0, "replica_queued_s": 0.0},
    )

    assert times.rows_per_s(standing) == standing.rows_per_s
    times.note(Ended(**ended, replica=standing.id, infer_s=0.5, batch_rows=1))  # somebody else had the cores
    times.note(Ended(**ended, replica=standing.id, infer_s=0.00001, batch_rows=1))
    times.note(Ended(**ended, replica=standing.id, infer_s=0.0, batch_rows=0))  # a failure says nothing

    assert times.rows_per_s(standing) == pytest.approx(100_000)
