from dataclasses import dataclass

import pytest

from ovray.core.ids import ReplicaId
from ovray.core.policies import (
    POLICIES,
    DevicePriority,
    FastestCompletion,
    LeastOutstanding,
    RoundRobin,
    SchedulePolicy,
)


@dataclass(eq=False)
class FakeCandidate:
    """A replica as a policy sees it."""

    id: ReplicaId
    order: int
    rows_per_s: float | None = 1.0
    outstanding: int = 0
    free_at_s: float = 0.0
    device_rank: int | None = 0

    def expected_s(self, rows: int, now_s: float) -> float:
        assert self.rows_per_s is not None
        return max(self.free_at_s, now_s) + rows / self.rows_per_s


def candidates(*rates: float | None) -> list[FakeCandidate]:
    return [FakeCandidate(ReplicaId(str(order)), order, rate) for order, rate in enumerate(rates)]


def test_every_name_has_a_policy() -> None:
    assert set(POLICIES) == set(SchedulePolicy)


@pytest.mark.parametrize("policy", SchedulePolicy)
def test_a_policy_picks_nobody_where_nobody_is_open(policy: SchedulePolicy) -> None:
    chosen = POLICIES[policy]()
    [one] = candidates(1.0)

    assert chosen.pick(1, 1, 0.0) is None
    chosen.open(one)
    assert chosen.pick(1, 1, 0.0) == "0"
    chosen.close(one)
    assert chosen.pick(1, 1, 0.0) is None
    chosen.open(one)
    chosen.remove(one)
    assert chosen.pick(1, 1, 0.0) is None


def test_device_priority_takes_the_first_device_with_room() -> None:
    policy = DevicePriority()
    first, second = candidates(1.0, 1.0)
    second.device_rank = 1
    policy.open(second)
    policy.open(first)

    assert policy.pick(1, 1, 0.0) == "0"
    policy.close(first)
    assert policy.pick(1, 1, 0.0) == "1"


def test_round_robin_takes_turns_and_passes_over_the_full() -> None:
    policy = RoundRobin()
    three = candidates(1.0, 1.0, 1.0)
    for one in three:
        policy.open(one)
    policy.close(three[1])

    assert [policy.pick(1, 1, 0.0) for _ in range(4)] == ["0", "2", "0", "2"]


def test_least_outstanding_takes_the_idle_slow_one() -> None:
    policy = LeastOutstanding()
    fast, slow = candidates(100.0, 1.0)
    fast.outstanding = 1
    policy.open(fast)
    policy.open(slow)

    assert policy.pick(1, 1, 0.0) == "1"


def test_fastest_completion_takes_the_busy_fast_one_before_the_idle_slow_one() -> None:
    policy = FastestCompletion()
    fast, slow = candidates(100.0, 1.0)
    fast.outstanding, fast.free_at_s = 3, 0.03
    policy.open(fast)
    policy.open(slow)

    assert policy.pick(1, 1, 0.0) == "0"


def test_fastest_completion_holds_work_back_from_a_slow_one_that_would_be_done_last() -> None:
    policy = FastestCompletion()
    fast, slow = candidates(100.0, 1.0)
    fast.outstanding, fast.free_at_s = 2, 0.02
    policy.close(fast)
    policy.open(slow)

    assert policy.pick(1, 97, 0.0) is None  # the fast one is through with all in 0.99 s
    assert policy.pick(1, 99, 0.0) == "1"  # it would need 1.01 s


def test_fastest_completion_takes_an_idle_slow_one_where_a_faster_one_is_held_back_for_being_busy() -> None:
    policy = FastestCompletion()
    fast, middle, slow = candidates(100.0, 2.0, 1.0)
    fast.outstanding, fast.free_at_s = 50, 0.5
    middle.outstanding, middle.free_at_s = 2, 0.9
    policy.close(fast)
    policy.open(middle)
    policy.open(slow)

    # The fast one is through with all 110 rows after 1.1 s, middle would be done after 1.4 s, and slow after 1 s.
    assert policy.pick(1, 60, 0.0) == "2"


def test_fastest_completion_allows_for_the_half_request_that_others_still_have_at_the_end() -> None:
    policy = FastestCompletion()
    fast, slow = candidates(10.0, 0.96)
    fast.outstanding, fast.free_at_s = 1, 0.1
    policy.close(fast)
    policy.open(slow)
    assert policy.pick(1, 9, 0.0) == "1"

    policy.remove(slow)
    slow.rows_per_s = 0.94
    policy.open(slow)
    assert policy.pick(1, 9, 0.0) is None


def test_fastest_completion_tries_strangers_first_and_one_at_a_time() -> None:
    policy = FastestCompletion()
    fast, stranger = candidates(100.0, None)
    policy.open(fast)
    policy.open(stranger)

    assert policy.pick(1, 2, 0.0) == "1"
    stranger.outstanding = 1
    policy.open(stranger)
    assert policy.pick(1, 1, 0.0) == "0"


def test_fastest_completion_does_not_wait_for_one_that_is_long_overdue() -> None:
    policy = FastestCompletion()
    overdue, other = candidates(10.0, 10.0)
    overdue.outstanding, overdue.free_at_s = 1, 1.0
    other.outstanding, other.free_at_s = 1, 5.5
    policy.open(overdue)
    policy.open(other)

    assert policy.pick(1, 1, 5.0) == "1"


def test_shares_of_strangers_are_those_of_an_average_replica() -> None:
    policy = FastestCompletion()
    known = candidates(30.0, 10.0, None, None)
    for one in known:
        policy.open(one)

    assert policy.share(known[0]) == pytest.approx(0.375)
    assert policy.share(known[2]) is None


def test_the_backlog_of_a_class_is_right_at_any_time_and_after_everyone_left() -> None:
    policy = FastestCompletion()
    two = candidates(10.0, 10.0)
    for one, free_at_s in zip(two, (1e6 + 1.0, 1e6 + 2.0), strict=True):
        one.outstanding, one.free_at_s = 1, free_at_s
        policy.close(one)
    [speed_class] = policy._classes.values()

    assert speed_class.backlog_rows(1e6) == pytest.approx(30.0)
    assert speed_class.backlog_rows(1e6 + 0.5) == pytest.approx(20.0)
    for one in two:
        policy.remove(one)
    assert speed_class.backlog_rows(1e6) == 0.0
