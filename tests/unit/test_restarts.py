"""When a replica that was lost is started again."""

import pytest

from ovray.core.ids import ReplicaId
from ovray.devices.leases import CoresTakenError
from ovray.driver.restarts import BACK_OFF_MAX_S, MAX_FAILED_STARTS, SHORT_LIFE_S, Restarts
from ovray.errors import CompileError, ConfigError, ReplicaLostError

A = ReplicaId("a")
LONG_LIFE_S = 10 * SHORT_LIFE_S


def _worked(restarts: Restarts, from_s: float) -> None:
    restarts.started(A)
    restarts.ready(A, from_s)


def test_a_replica_that_dies_after_a_while_is_started_again_at_once_each_time() -> None:
    restarts = Restarts()

    for life in range(20):
        _worked(restarts, life * LONG_LIFE_S)
        restarts.lost(A, (life + 1) * LONG_LIFE_S)

        assert restarts.due((life + 1) * LONG_LIFE_S) == [A]


def test_a_replica_that_dies_as_soon_as_it_is_ready_waits_longer_each_time() -> None:
    restarts = Restarts()
    possible = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, BACK_OFF_MAX_S)
    waits = []

    for _ in range(9):
        _worked(restarts, 0.0)
        restarts.lost(A, 0.0)
        waits.append(next(wait_s for wait_s in possible if restarts.due(wait_s)))

    assert waits == [*possible, BACK_OFF_MAX_S, BACK_OFF_MAX_S]


@pytest.mark.parametrize("error", [CompileError("no such layer"), ConfigError("SIM has no setting 'x'")])
def test_what_will_be_refused_again_is_not_tried_again(error: Exception) -> None:
    restarts = Restarts()

    restarts.could_not_start(A, error, 0.0)

    assert restarts.planned == ()


def test_cores_that_others_hold_end_a_first_start_and_only_delay_a_later_one() -> None:
    restarts = Restarts()
    taken = CoresTakenError("pid 7 holds core 0")

    restarts.could_not_start(A, taken, 0.0)
    assert restarts.planned == ()

    _worked(restarts, 0.0)
    restarts.lost(A, LONG_LIFE_S)
    restarts.started(A)
    restarts.could_not_start(A, taken, LONG_LIFE_S)
    assert restarts.planned == (A,)


def test_starts_that_come_to_nothing_come_to_an_end() -> None:
    restarts = Restarts()

    for start in range(MAX_FAILED_STARTS):
        assert start == 0 or restarts.planned == (A,)
        restarts.started(A)
        restarts.could_not_start(A, ReplicaLostError("killed while it compiled"), 0.0)

    assert restarts.planned == ()
