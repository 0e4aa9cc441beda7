"""When a simulated device has done what it is given: numbers, no clock."""

import pytest

from ovray.replica.sim_pace import Pace


def test_a_device_that_has_work_keeps_its_rate_however_late_its_thread_is() -> None:
    pace, now_s = Pace(), 100.0

    for _ in range(500):
        now_s = pace.done_at_s(now_s, 0.02) + 0.0007

    assert pace.done_at_s(now_s, 0.02) == pytest.approx(100.0 + 501 * 0.02)


def test_a_device_that_had_nothing_to_do_begins_when_it_is_given_something() -> None:
    pace = Pace()
    pace.done_at_s(100.0, 0.02)

    assert pace.done_at_s(100.5, 0.02) == pytest.approx(100.52)


def test_a_pause_of_a_part_of_a_short_inference_counts() -> None:
    pace = Pace()
    pace.done_at_s(100.0, 0.001)

    assert pace.done_at_s(100.0015, 0.001) == pytest.approx(100.0025)
