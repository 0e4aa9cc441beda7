"""Whether joining pays is found out before anybody waits."""

from collections.abc import Callable, Sequence

import pytest

from ovray.replica.joining_trial import TRIAL_ROWS, joining_pays


def a_device(alone_s: Sequence[float], together_s: Sequence[float]) -> Callable[[int], float]:
    """Takes these times, one after the other, and then the last of them for ever."""
    times = {1: list(alone_s), TRIAL_ROWS: list(together_s)}

    def infer(rows: int) -> float:
        left = times[rows]
        return left.pop(0) if len(left) > 1 else left[0]

    return infer


@pytest.mark.parametrize(
    ("alone_s", "together_s", "pays"),
    [
        ([0.009], [0.036], False),  # a conv net on a CPU
        ([0.009], [0.033], False),  # a little faster together may be noise
        ([0.00005], [0.00006], True),  # a perceptron
        ([0.004], [0.006], True),  # a GPU
        ([0.0003], [0.001], True),  # what is saved besides the inference counts
    ],
)
def test_rows_are_joined_where_they_are_clearly_faster_together(
    alone_s: list[float], together_s: list[float], pays: bool
) -> None:
    assert joining_pays(a_device(alone_s, together_s)) is pays


def test_the_first_time_and_disturbed_times_do_not_count() -> None:
    assert joining_pays(a_device([0.004, 0.5, 0.004], [3.0, 0.006, 0.4, 0.006]))


def test_a_slow_device_is_tried_only_once() -> None:
    tried: list[int] = []

    def infer(rows: int) -> float:
        tried.append(rows)
        return 0.5 * rows

    assert not joining_pays(infer)
    assert tried == [TRIAL_ROWS, 1, TRIAL_ROWS]
