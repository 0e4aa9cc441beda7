"""Requests to real replicas of a simulated device that fails, and then hangs while it is probed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ovray.core.ledger import ReplicaState
from ovray.core.snapshot import ReplicaSnapshot
from ovray.driver.calls import Ended
from ovray.driver.opening import PoolOptions, open_pool
from ovray.driver.placement import PlacementOptions
from ovray.driver.pool import RequestPool
from ovray.driver.session import held_session
from tests.integration.models import a_perceptron
from tests.waiting import DEADLINE_S, until

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    held_session.take("local")
    yield
    held_session.let_go()


@pytest.fixture
def trouble(tmp_path: Path) -> Path:
    return tmp_path / "trouble"


@pytest.fixture
def pool(trouble: Path) -> Iterator[RequestPool]:
    """Is one of two devices, of which the first has trouble; a silent one is given up after ten seconds."""
    options = PoolOptions(
        placement=PlacementOptions.parse(
            devices=f"SIM?ms=2&answer=sum&trouble={trouble},SIM?ms=2&answer=sum",
            hint="THROUGHPUT",
            precision=None,
            share_cores=True,
            lease_timeout_s=30.0,
            replica_timeout_s=10.0,
        )
    )
    opened = open_pool(a_perceptron(), options).pool
    yield opened
    opened.close()


class _Asking:
    """Sends requests and keeps their ends."""

    def __init__(self, pool: RequestPool) -> None:
        self._pool = pool
        self.ends: list[list[Ended]] = []

    def ask(self, count: int) -> None:
        for _ in range(count):
            number = len(self.ends)
            ends: list[Ended] = []
            self.ends.append(ends)
            self._pool.submit([np.full((1, 32), number, np.float32)], ended=ends.append)

    def check(self) -> None:
        assert self._pool.drain(DEADLINE_S)
        for number, ends in enumerate(self.ends):
            (ended,) = ends
            assert ended.error is None, ended.error
            assert ended.outputs is not None
            assert [output.tolist() for output in ended.outputs] == [[[32.0 * number] * 3], [[32.0 * number]]]


def _troubled(pool: RequestPool) -> ReplicaSnapshot:
    return next(replica for replica in pool.snapshot().scheduler.replicas if replica.id.endswith("#0"))


def test_a_device_that_hangs_in_its_probe_is_started_anew(pool: RequestPool, trouble: Path) -> None:
    asking = _Asking(pool)
    until(lambda: len(pool.snapshot().scheduler.replicas) == 2)
    asking.ask(200)
    asking.check()
    first = pool.snapshot().reports[_troubled(pool).id].pid

    # 1. it fails at all it is given   2. it hangs when it is probed   3. it is given up   4. a new one is sound
    trouble.write_text("fails")
    until(lambda: asking.ask(1) or _troubled(pool).state is ReplicaState.EVICTED)
    trouble.write_text("hangs")
    until(lambda: _troubled(pool).state is ReplicaState.LOST)
    trouble.unlink()
    until(lambda: _troubled(pool).state is ReplicaState.READY)
    asking.ask(200)
    asking.check()

    assert pool.snapshot().reports[_troubled(pool).id].pid != first


def test_what_a_device_holds_that_hangs_is_answered_by_the_other_at_once(pool: RequestPool, trouble: Path) -> None:
    asking = _Asking(pool)
    until(lambda: len(pool.snapshot().scheduler.replicas) == 2)
    asking.ask(200)
    asking.check()

    trouble.write_text("hangs")
    # Until it holds some: the other may take all of a few.
    until(lambda: asking.ask(1) or _troubled(pool).is_stalled or _troubled(pool).state is ReplicaState.LOST)
    asking.check()
    counters = pool.snapshot().scheduler.counters

    assert counters["backups_won"] + counters["retries"] > 0
