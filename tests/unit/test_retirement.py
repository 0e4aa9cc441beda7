from concurrent.futures import Future
from typing import Any

from ovray.core.ids import ReplicaId
from ovray.driver.retirement import NOTICE_S, TRAVEL_S, Retirement
from ovray.errors import ReplicaLostError

A = ReplicaId("h/SIM#0")


class Replica:
    """Answers how many requests it has, as a test says."""

    def __init__(self) -> None:
        self.holds: int | Exception = 0
        self.is_retired = False

    def ask(self, replica: ReplicaId) -> "Future[Any]":
        assert replica == A
        self.is_retired = True
        answer: Future[Any] = Future()
        if isinstance(self.holds, Exception):
            answer.set_exception(self.holds)
        else:
            answer.set_result(self.holds)
        return answer


def ended_at(retirement: Retirement, from_s: float, to_s: float) -> float | None:
    now_s = from_s
    while now_s <= to_s:
        if retirement.look([A], now_s):
            return now_s
        now_s += 0.25
    return None


def test_drivers_get_time_to_notice_and_answers_to_travel() -> None:
    replica = Replica()
    retirement = Retirement(replica.ask, patience_s=30)

    assert ended_at(retirement, 0.0, NOTICE_S - 0.25) is None
    assert not replica.is_retired
    at_s = ended_at(retirement, NOTICE_S, 100.0)
    assert at_s is not None
    assert at_s >= NOTICE_S + TRAVEL_S


def test_a_replica_stays_as_long_as_it_gets_on_with_what_it_has() -> None:
    replica = Replica()
    retirement = Retirement(replica.ask, patience_s=30)

    for minute in range(5):
        replica.holds = 10 - minute
        assert ended_at(retirement, minute * 20.0, minute * 20.0 + 20) is None
    replica.holds = 0
    assert ended_at(retirement, 100.0, 110.0) is not None


def test_a_replica_that_hangs_or_is_gone_is_not_waited_for_without_an_end() -> None:
    hanging, gone = Replica(), Replica()
    hanging.holds, gone.holds = 3, ReplicaLostError("killed")

    at_s = ended_at(Retirement(hanging.ask, patience_s=30), 0.0, 100.0)
    assert at_s is not None
    assert at_s >= NOTICE_S + 30
    assert ended_at(Retirement(gone.ask, patience_s=30), 0.0, 10.0) is not None


def test_who_has_left_is_not_remembered() -> None:
    retirement = Retirement(Replica().ask, patience_s=30)
    assert ended_at(retirement, 0.0, 10.0) is not None

    assert retirement.look([], 10.0) == []
    assert ended_at(retirement, 10.0, 10.0 + NOTICE_S - 0.25) is None
