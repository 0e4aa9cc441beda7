"""Requests from threads of this process through real replicas, over sockets and over Ray, and replicas killed."""

import os
import random
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from ovray.driver.arena import Arena
from ovray.driver.calls import Ended
from ovray.driver.local_link import Doorway
from ovray.driver.mailbox import Mailbox
from ovray.driver.opening import Carriers, PoolOptions, open_pool
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool import RequestPool
from ovray.driver.session import held_session
from ovray.errors import DataError, ReplicaError
from tests.integration.models import a_perceptron
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    held_session.take("local")
    yield
    held_session.let_go()


@contextmanager
def _serving(carriers: Carriers, devices: str) -> Iterator[RequestPool]:
    options = PoolOptions(
        placement=PlacementOptions.parse(
            devices=devices, hint="THROUGHPUT", precision="f32", share_cores=True, lease_timeout_s=30.0
        ),
        carriers=carriers,
    )
    pool = open_pool(a_perceptron(), options).pool
    try:
        yield pool
    finally:
        pool.close()


class _Asked:
    """One request and how it ended."""

    def __init__(self, pool: RequestPool, tensor: NDArray[np.float32]) -> None:
        self.tensor = tensor.copy()
        self.ends: list[Ended] = []
        pool.submit([tensor], ended=self.ends.append, rows=len(tensor))
        tensor[:] = np.nan  # the bytes were taken


def _ask(pool: RequestPool, seed: int, count: int, into: list[_Asked]) -> None:
    chance = np.random.default_rng(seed)
    for _ in range(count):
        rows = int(chance.integers(1, 4))
        into.append(_Asked(pool, chance.standard_normal((rows, 32), dtype=np.float32)))


def _check(asked: list[_Asked]) -> None:
    compiled = ov.Core().compile_model(a_perceptron(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for one in asked:
        (ended,) = one.ends
        assert ended.error is None, ended.error
        assert ended.outputs is not None
        np.testing.assert_allclose(ended.outputs[0], compiled(one.tensor)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carriers", list(Carriers))
def test_every_request_gets_its_own_result_although_a_replica_is_killed(carriers: Carriers) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    asked: list[list[_Asked]] = [[] for _ in range(4)]
    with _serving(carriers, "CPU,CPU") as pool:
        until(lambda: len(pool.snapshot().scheduler.replicas) == 2)
        threads = [
            threading.Thread(target=_ask, args=(pool, seed + number, 500, into))
            for number, into in enumerate(asked)
        ]
        for thread in threads:
            thread.start()
        _kill_one_that_holds_work(pool)
        for thread in threads:
            thread.join(DEADLINE_S)
        assert pool.drain(DEADLINE_S)
        # What it had answered before it was stopped may come before the news of its end; and its successor may be
        # there by then.
        until(lambda: pool.snapshot().scheduler.counters["losses"] > 0)

    _check([one for into in asked for one in into])


def _kill_one_that_holds_work(pool: RequestPool) -> None:
    """Stops a replica that has work, makes sure that it still has some, and kills it."""
    while True:
        until(lambda: any(replica.requests_outstanding for replica in pool.snapshot().scheduler.replicas))
        snapshot = pool.snapshot()
        busiest = max(snapshot.scheduler.replicas, key=lambda replica: replica.requests_outstanding)
        process = snapshot.reports[busiest.id].pid
        os.kill(process, 19)
        holds = [r.requests_outstanding for r in pool.snapshot().scheduler.replicas if r.id == busiest.id]
        if holds[0]:
            os.kill(process, 9)
            return
        os.kill(process, 18)


@pytest.mark.parametrize("carriers", list(Carriers))
def test_large_tensors_arrive_and_their_memory_is_used_again(carriers: Carriers) -> None:
    asked: list[_Asked] = []
    with _serving(carriers, "CPU") as pool:
        for _ in range(30):
            tensor = np.random.default_rng(7).standard_normal((2000, 32), dtype=np.float32)
            asked.append(_Asked(pool, tensor))
            assert pool.drain(DEADLINE_S)

    _check(asked)


@pytest.mark.parametrize("carriers", list(Carriers))
def test_an_input_that_the_graph_refuses_harms_nobody(carriers: Carriers) -> None:
    ends: list[Ended] = []
    with _serving(carriers, "CPU") as pool:
        pool.submit([np.zeros((1, 31), np.float32)], ended=ends.append)
        assert pool.drain(DEADLINE_S)
        asked = [_Asked(pool, np.ones((1, 32), np.float32))]
        assert pool.drain(DEADLINE_S)

    assert isinstance(ends[0].error, DataError)
    _check(asked)


def test_sockets_are_used() -> None:
    with _serving(Carriers.SOCKET, "CPU") as pool:
        process = next(iter(pool.snapshot().reports.values())).pid
        until(lambda: any("memfd:ovray-arena" in line for line in _maps(process)))


def _maps(process: int) -> list[str]:
    return Path(f"/proc/{process}/maps").read_text().splitlines()


def test_only_its_user_can_reach_the_socket_and_no_file_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mailbox, connected = Mailbox(), []
    doorway = Doorway(mailbox, connected.append)
    try:
        assert stat.S_IMODE(os.stat(doorway.path).st_mode) == 0o600
        assert list(tmp_path.iterdir()) == []
        if os.getuid() == 0:
            # Even a socket that anybody may write keeps a stranger out: one who knows its path, and one who has
            # come by its descriptor.
            os.chmod(doorway.path, 0o666)
            for path in (doorway.path, doorway.path.replace(str(os.getpid()), "self")):
                stranger = os.fork()
                if stranger == 0:
                    _connect_as_nobody(path)
                os.waitpid(stranger, 0)
                mailbox.get_all(1.0)
    finally:
        doorway.close()

    assert connected == []


def _connect_as_nobody(path: str) -> None:
    try:
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.settimeout(5)
            knocking.connect(path)
    finally:
        os._exit(0)


def test_a_pool_that_is_closed_leaves_no_replica_and_no_lease() -> None:
    with _serving(Carriers.SOCKET, "CPU") as pool:
        process = next(iter(pool.snapshot().reports.values())).pid

    until(lambda: not Path(f"/proc/{process}").exists())
    with pytest.raises(ReplicaError, match="was closed"):
        pool.submit([np.zeros((1, 32), np.float32)], ended=lambda _: None)


def test_a_closed_arena_leaves_no_file() -> None:
    files = len(os.listdir("/proc/self/fd"))

    Arena(1 << 20).close()

    assert len(os.listdir("/proc/self/fd")) == files
