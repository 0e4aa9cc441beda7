import sys
from types import FrameType

import pytest

from ovray.core.policies import SchedulePolicy
from tests.unit.scheduled_request import SteadyLoad

STEPS = 400


def calls_per_request(replicas: int, policy: SchedulePolicy) -> float:
    """Count function calls, of Python and of C: the same on every machine."""
    load = SteadyLoad(replicas, policy)
    for _ in range(STEPS):
        load.step()
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        for _ in range(STEPS):
            load.step()
    finally:
        sys.setprofile(None)
    return calls / STEPS


@pytest.mark.slow
@pytest.mark.parametrize("policy", SchedulePolicy)
def test_a_request_costs_no_more_on_a_thousand_replicas_than_on_ten(policy: SchedulePolicy) -> None:
    assert calls_per_request(1000, policy) <= 1.5 * calls_per_request(10, policy)
