import sys
from collections.abc import Callable
from types import FrameType

import pytest

from ovray.core.policies import SchedulePolicy
from tests.unit.scheduled_request import LoneRequests, SteadyLoad

STEPS = 400


def calls_per_request(replicas: int, policy: SchedulePolicy) -> float:
    load = SteadyLoad(replicas, policy)
    for _ in range(STEPS):
        load.step()
    return calls_of(load.step)


def calls_of(step: Callable[[], None]) -> float:
    """Count function calls of one step, of Python and of C: the same on every machine."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(STEPS):
            step()
    finally:
        sys.setprofile(None)
    return calls / STEPS


@pytest.mark.parametrize("policy", SchedulePolicy)
def test_a_request_that_finds_nothing_under_way_takes_the_short_way(policy: SchedulePolicy) -> None:
    alone = LoneRequests(10, policy)
    for _ in range(STEPS):
        alone.step()

    assert calls_of(alone.step) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("policy", SchedulePolicy)
def test_a_request_costs_no_more_on_a_thousand_replicas_than_on_ten(policy: SchedulePolicy) -> None:
    assert calls_per_request(1000, policy) <= 1.5 * calls_per_request(10, policy)
