"""How long replies are left alone, asked of a scheduler that has sent requests."""

import pytest

from ovray.core.events import Completed, PrioritiesChanged, ReplicaReady
from ovray.core.ids import DispatchId, ReplicaId
from ovray.core.scheduler import Scheduler
from tests.unit.scheduling import a_ready_replica, a_request, a_scheduler, handle_all

A, B = ReplicaId("a"), ReplicaId("b")


def with_requests(replica: ReplicaReady, *, held: int) -> Scheduler:
    """Return a scheduler that has sent so many to this replica at time 0."""
    scheduler = a_scheduler(replica)
    handle_all(scheduler, [a_request(number) for number in range(held)], 0.0)
    return scheduler


def a_fast_replica(name: str = "a", *, nireq: int = 2, rate: float | None = 1000.0) -> ReplicaReady:
    return a_ready_replica(name, rate=rate, request_window=50, nireq=nireq)


@pytest.mark.parametrize(
    ("held", "nireq", "spare_ms"),
    [
        # One of two that run may be as good as done, and then the other is all there is.
        (11, 2, 10),
        (12, 2, 10),
        (13, 2, 12),
        (12, 1, 12),
        (15, 8, 8),
    ],
)
def test_half_of_what_is_certain_to_keep_a_replica_busy_is_spared(held: int, nireq: int, spare_ms: float) -> None:
    scheduler = with_requests(a_fast_replica(nireq=nireq), held=held)

    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(spare_ms / 2000)


def test_what_was_heard_late_or_long_ago_leaves_less() -> None:
    scheduler = with_requests(a_fast_replica(), held=21)

    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(0.010)
    assert scheduler.gathering_s(0.006, 0.0) == pytest.approx(0.007)
    assert scheduler.gathering_s(0.006, 0.004) == pytest.approx(0.005)
    assert scheduler.gathering_s(0.030, 0.0) == 0


def test_an_answer_says_that_the_replica_has_begun_another() -> None:
    scheduler = with_requests(a_fast_replica(nireq=1), held=20)

    scheduler.handle(Completed(replica=A, dispatch=DispatchId(0)), 0.001)

    assert scheduler.gathering_s(0.001, 0.0) == pytest.approx(0.0095)


def test_nobody_hears_of_a_result_much_later_than_it_was_there() -> None:
    scheduler = with_requests(a_fast_replica(rate=200.0), held=49)

    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(0.02)


def test_what_brings_fewer_than_two_replies_is_not_worth_a_wait() -> None:
    assert with_requests(a_fast_replica(rate=90.0), held=49).gathering_s(0.0, 0.0) == 0
    assert with_requests(a_fast_replica(), held=4).gathering_s(0.0, 0.0) == 0


def test_the_replica_that_has_least_decides_and_all_of_them_bring_replies() -> None:
    scheduler = with_requests(a_fast_replica("a", nireq=1), held=12)
    handle_all(scheduler, [a_fast_replica("b", nireq=1)], 0.0)

    assert scheduler.gathering_s(0.0, 0.0) == 0  # b has nothing to do

    handle_all(scheduler, [a_request(number, pinned_to=B) for number in range(1000, 1003)], 0.0)
    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(0.0015)  # in which three come


def test_replicas_that_get_nothing_new_do_not_count() -> None:
    scheduler = with_requests(a_fast_replica("a"), held=11)
    handle_all(scheduler, [a_fast_replica("b")], 0.0)

    handle_all(scheduler, [PrioritiesChanged(devices=("a/CPU.0",))], 0.0)

    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(0.005)


def test_nothing_is_left_alone_where_nobody_works_or_a_speed_is_unknown() -> None:
    assert a_scheduler().gathering_s(0.0, 0.0) == 0
    assert with_requests(a_fast_replica(rate=None), held=20).gathering_s(0.0, 0.0) == 0


def test_rows_of_large_requests_take_longer() -> None:
    scheduler = a_scheduler(a_fast_replica(nireq=1))
    handle_all(scheduler, [a_request(number, rows=4) for number in range(8)], 0.0)

    assert scheduler.gathering_s(0.0, 0.0) == pytest.approx(0.016)
