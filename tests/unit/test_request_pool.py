"""Requests from many threads: each ends exactly once, with the result of its own input or with one clear error."""

import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ovray.core.ids import ReplicaId
from ovray.core.scheduler import Scheduler
from ovray.core.snapshot import Snapshot
from ovray.devices.records import ReplicaSpec
from ovray.driver.arena import ProcessStorage
from ovray.driver.bundles import BUNDLE_BYTES
from ovray.driver.calls import Caller, Ended
from ovray.driver.carriage import Carriage
from ovray.driver.messages import ReplicaStart
from ovray.driver.pool import RequestPool
from ovray.driver.room import Room
from ovray.driver.transport import Inbox
from ovray.errors import CompileError, ConfigError, DataError, ReplicaError
from ovray.replica.envelope import Envelope
from tests.unit.answering_transport import AnsweringTransport, a_report
from tests.waiting import DEADLINE_S, until


def some_starts(count: int) -> list[ReplicaStart]:
    specs = [
        ReplicaSpec(
            id=ReplicaId(f"h/CPU.0#{index}"),
            host="h",
            node_id="n",
            device=f"CPU.{index}",
            openvino_device="CPU",
            numa_node=0,
            cpus=(index,),
        )
        for index in range(count)
    ]
    return [ReplicaStart(spec=spec, properties={}) for spec in specs]


def _pool(
    seed: int = 0, max_requests: int = 1000, max_bytes: int = 1 << 20
) -> tuple[RequestPool, AnsweringTransport]:
    inbox: Inbox = Inbox()
    transport = AnsweringTransport(inbox, seed)
    carriage = Carriage(client="tests", inbox=inbox, transport=transport, storage=ProcessStorage())
    room = Room(max_requests=max_requests, max_bytes=max_bytes)
    return RequestPool(Scheduler(), carriage, room, lambda: None), transport


@contextmanager
def _serving(replicas: int, **options: int) -> Iterator[tuple[RequestPool, AnsweringTransport]]:
    pool, transport = _pool(**options)
    pool.start(some_starts(replicas))
    try:
        yield pool, transport
    finally:
        pool.close()


class _Ends:
    """Collects how requests ended."""

    def __init__(self) -> None:
        self.ends: list[Ended] = []
        self._came = threading.Semaphore(0)

    def __call__(self, ended: Ended) -> None:
        self.ends.append(ended)
        self._came.release()

    def next(self) -> Ended:
        assert self._came.acquire(timeout=DEADLINE_S)
        return self.ends[-1]


#: Elements of an int64 tensor that is too large to be joined with others.
LARGE = BUNDLE_BYTES // 8 + 1


@pytest.mark.parametrize("length", [1, LARGE])
def test_every_request_of_many_threads_ends_once_with_its_own_result_while_replicas_die(length: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    results: list[tuple[int, Ended]] = []
    count = 400 if length == 1 else 100
    with _serving(5, seed=seed, max_requests=64, max_bytes=64 * 8 * LARGE) as (pool, transport):

        def submit(thread: int) -> None:
            for number in range(count):
                value = thread * 1000 + number
                tensor = np.full(length, value, dtype=np.int64)
                pool.submit([tensor], ended=lambda ended, value=value: results.append((value, ended)))
                tensor[:] = -1

        threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for victim in (1, 3):
            # At this moment it holds work: it was sent some, and answers only every now and then.
            until(lambda victim=victim: any(replica.endswith(f"#{victim}") for replica, _ in transport.received))
            transport.kill(ReplicaId(f"h/CPU.0#{victim}"))
        for thread in threads:
            thread.join(DEADLINE_S)
        assert pool.drain(DEADLINE_S)

    assert Counter(value for value, _ in results) == Counter(
        thread * 1000 + number for thread in range(8) for number in range(count)
    )
    assert all(
        ended.outputs is not None and (ended.outputs[0] == np.full(length, 2 * value)).all()
        for value, ended in results
    )


def test_a_large_request_is_sent_by_who_asks_where_nobody_drives() -> None:
    senders: list[str] = []
    ends = _Ends()
    with _serving(1) as (pool, transport):
        send = transport.send_requests

        def note(replica: ReplicaId, envelope: Envelope) -> None:
            senders.append(threading.current_thread().name)
            send(replica, envelope)

        transport.send_requests = note  # type: ignore[method-assign]
        # The driver thread looks after replicas every now and then, and may have the turn just then.
        for _ in range(100):
            pool.submit([np.ones(LARGE)], ended=ends)
            assert ends.next().outputs is not None
            if senders[-1] == threading.current_thread().name:
                break

    assert senders[-1] == threading.current_thread().name


def test_who_waits_for_the_only_request_takes_its_answer_itself() -> None:
    takers: list[str] = []
    with _serving(1) as (pool, _):
        for _ in range(100):
            ends = _Ends()

            def end(ended: Ended, ends: _Ends = ends) -> None:
                takers.append(threading.current_thread().name)
                ends(ended)

            pool.submit([np.ones(LARGE)], ended=end, caller=Caller.WAITS)
            pool.wait_for(lambda ends=ends: bool(ends.ends))  # type: ignore[misc]
            assert ends.next().outputs is not None
            if takers[-1] == threading.current_thread().name:
                break

    assert takers[-1] == threading.current_thread().name


def test_who_waits_for_the_only_request_hears_of_its_end_whoever_brings_that_about() -> None:
    ends = _Ends()
    with _serving(1) as (pool, transport):
        transport.hold.set()
        request = pool.submit([np.ones(LARGE)], ended=ends)
        threading.Timer(0.1, pool.cancel, (request,)).start()

        pool.wait_for(lambda: bool(ends.ends))

        assert "cancelled" in str(ends.next().error)
        transport.hold.clear()


@pytest.fixture
def asked_for_patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Has schedulers tell their drivers to leave replies alone for an hour; fills as drivers ask."""
    asked: list[float] = []

    def be_patient(scheduler: Scheduler, now_s: float, gathered_s: float) -> float:
        asked.append(now_s)
        return 3600.0

    monkeypatch.setattr(Scheduler, "gathering_s", be_patient)
    return asked


def test_replies_are_left_alone_while_the_scheduler_says_so_and_notes_are_not(
    asked_for_patience: list[float],
) -> None:
    there, here = socket.socketpair()
    is_read = threading.Event()
    with there, here, _serving(1) as (_, transport):
        until(lambda: asked_for_patience)
        transport.inbox.put(partial(transport.inbox.watch, here.fileno(), is_read.set))
        there.send(b"a reply")
        assert not is_read.wait(0.5)

        transport.inbox.put(lambda: None)

        assert is_read.wait(DEADLINE_S)
        transport.inbox.put(partial(transport.inbox.unwatch, here.fileno()))


def test_replies_are_never_left_alone_where_requests_are_joined(asked_for_patience: list[float]) -> None:
    pool, transport = _pool()
    transport.report = a_report(max_joined_rows=8)
    pool.start(some_starts(1))
    try:
        until(lambda: pool.joined_in_flight)
        ends = _Ends()
        pool.submit([np.ones(LARGE)], ended=ends)
        assert ends.next().outputs is not None
    finally:
        pool.close()

    assert asked_for_patience == []


def test_replies_are_not_left_alone_where_no_core_of_a_driver_infers(
    asked_for_patience: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, _ = _pool()
    looks: list[Snapshot] = []
    monkeypatch.setattr(pool._loop, "on_look", looks.append)
    pool.start([replace(start, spec=replace(start.spec, openvino_device="GPU")) for start in some_starts(1)])
    try:
        until(lambda: looks and looks[-1].replicas)
        ends = _Ends()
        pool.submit([np.ones(LARGE)], ended=ends)
        assert ends.next().outputs is not None
    finally:
        pool.close()

    assert asked_for_patience == []


def test_an_input_that_is_to_blame_gets_its_error_and_the_replica_stays() -> None:
    ends = _Ends()
    with _serving(1) as (pool, _):
        pool.submit([np.array([np.nan])], ended=ends)
        assert isinstance(ends.next().error, DataError)

        pool.submit([np.array([1.0])], ended=ends)

        assert ends.next().outputs is not None


def test_a_device_that_fails_leaves_its_requests_to_the_others() -> None:
    ends = _Ends()
    with _serving(2) as (pool, transport):
        transport.broken.add(ReplicaId("h/CPU.0#0"))

        for _ in range(20):
            pool.submit([np.array([1.0])], ended=ends)
        for _ in range(20):
            ends.next()

    assert all(ended.error is None and ended.replica == "h/CPU.0#1" for ended in ends.ends)


def test_when_no_replica_is_left_every_request_ends_and_the_next_is_refused() -> None:
    ends = _Ends()
    with _serving(1) as (pool, transport):
        transport.hold.set()
        for _ in range(3):
            pool.submit([np.array([1.0])], ended=ends)
        transport.refusing[ReplicaId("h/CPU.0#0")] = CompileError("the device is gone")
        transport.kill(ReplicaId("h/CPU.0#0"))

        for _ in range(3):
            assert "the device is gone" in str(ends.next().error)
        with pytest.raises(ReplicaError, match="no replica is left"):
            pool.submit([np.array([1.0])], ended=ends)
        until(lambda: transport.is_closed)


def test_closing_ends_what_waits() -> None:
    ends = _Ends()
    with _serving(1) as (pool, transport):
        transport.hold.set()
        for _ in range(10):
            pool.submit([np.array([1.0])], ended=ends)

        pool.close()

        assert [str(ended.error) for ended in ends.ends] == [
            "the model was closed; compile it again to infer" for _ in range(10)
        ]
        with pytest.raises(ReplicaError, match="was closed"):
            pool.snapshot()


def test_who_waits_for_room_hears_of_the_close() -> None:
    told: list[Exception] = []
    with _serving(1, max_requests=1) as (pool, transport):
        transport.hold.set()
        pool.submit([np.array([1.0])], ended=lambda _: None)

        def submit() -> None:
            try:
                pool.submit([np.array([1.0])], ended=lambda _: None)
            except ReplicaError as error:
                told.append(error)

        waiting = threading.Thread(target=submit)
        waiting.start()
        pool.close()
        waiting.join(DEADLINE_S)

    # It got the place that the close freed, and was ended by the close, or was told of it while it waited.
    assert not waiting.is_alive()
    assert all("was closed" in str(error) for error in told)


def test_a_request_that_finds_no_room_before_its_deadline_is_not_taken() -> None:
    with _serving(1, max_requests=1) as (pool, transport):
        transport.hold.set()
        pool.submit([np.array([1.0])], ended=lambda _: None)

        with pytest.raises(ReplicaError, match=r"1 requests .* none ended within the deadline of 0.05 s"):
            pool.submit([np.array([1.0])], ended=lambda _: None, deadline_s=0.05)


def test_a_request_whose_deadline_passes_while_it_waits_ends_with_an_error() -> None:
    ends = _Ends()
    with _serving(1) as (pool, transport):
        transport.hold.set()
        for _ in range(50):
            pool.submit([np.array([1.0])], ended=lambda _: None)

        pool.submit([np.array([1.0])], ended=ends, deadline_s=0.05)

        assert "deadline passed" in str(ends.next().error)


def test_a_cancelled_request_ends_and_its_replica_is_told() -> None:
    ends = _Ends()
    with _serving(1) as (pool, transport):
        transport.hold.set()
        request = pool.submit([np.array([1.0])], ended=ends)
        until(lambda: transport.received)

        pool.cancel(request)

        assert "cancelled" in str(ends.next().error)
        assert transport.cancelled == [transport.received[0][1].dispatch]


def test_a_pinned_request_goes_where_it_is_pinned_to() -> None:
    ends = _Ends()
    with _serving(3) as (pool, _):
        for _ in range(10):
            pool.submit([np.array([1.0])], ended=ends, pinned_to="h/CPU.2")
        for _ in range(10):
            ends.next()

    assert {ended.replica for ended in ends.ends} == {"h/CPU.0#2"}


def test_devices_that_are_left_out_of_the_priorities_get_no_more_work() -> None:
    ends = _Ends()
    with _serving(3) as (pool, _):
        pool.set_priorities(["h/CPU.1"])

        for _ in range(10):
            pool.submit([np.array([1.0])], ended=ends)
        for _ in range(10):
            ends.next()

    assert {ended.replica for ended in ends.ends} == {"h/CPU.0#1"}


def test_a_pool_serves_although_one_of_its_replicas_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    pool, transport = _pool()
    transport.refusing[ReplicaId("h/CPU.0#0")] = CompileError("unsupported operation")

    pool.start(some_starts(2))

    assert str(pool.snapshot().failures[ReplicaId("h/CPU.0#0")]) == "unsupported operation"
    assert caplog.messages == ["h/CPU.0#0 could not start and is left out: unsupported operation"]
    pool.close()


def test_a_model_that_compiles_nowhere_is_refused_with_every_reason() -> None:
    pool, transport = _pool()
    for index in range(2):
        transport.refusing[ReplicaId(f"h/CPU.0#{index}")] = CompileError(f"reason {index}")

    with pytest.raises(ConfigError, match=r"reason 0; h/CPU.0#1: reason 1"):
        pool.start(some_starts(2))


def test_a_forked_child_is_told_that_the_replicas_answer_only_its_parent() -> None:
    with _serving(1) as (pool, _):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                pool.submit([np.array([1.0])], ended=lambda _: None)
            except ReplicaError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        assert b"forked" in os.read(reader, 1000)
        os.close(reader)
        os.close(writer)
