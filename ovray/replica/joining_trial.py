"""Finds out, before anybody waits, whether a device does several rows together faster than one by one.

May not enter: openvino, threads, clocks, requests.  Who runs the inferences: openvino_requests.py.  What is learnt
later, while requests are served: benefit.py.

A conv net keeps a CPU core as busy with one picture as with many; its joined rows only end later, and a model with
an open batch dimension costs more than one of a fixed shape.  A perceptron, or a GPU, does four rows in about the
time of one.
"""

from collections.abc import Callable

#: Enough to show, and not long to wait for.
TRIAL_ROWS = 4

#: Joining pays if a row then takes this part of its time alone, or less.  Noise on a shared machine is a tenth.
_PAYS_BELOW = 0.85

#: What a replica does for every inference besides: taking from the queue, filling, answering (measured on two
#: cores with a perceptron).
_OVERHEAD_S = 0.0001

#: Each of the two is run so often, unless time is up; the best counts, as the least disturbed.
_ROUNDS = 3
_LIMIT_S = 1.0


def joining_pays(infer: Callable[[int], float]) -> bool:
    """Tells whether rows are done faster together.

    Args:
        infer: runs one inference of so many rows, and says how many seconds it took.

    Example:
        >>> joining_pays(lambda rows: 0.001)
        True
        >>> joining_pays(lambda rows: 0.001 * rows)
        False
    """
    infer(TRIAL_ROWS)  # devices prepare themselves for a shape; that does not count
    alone_s, together_s = infer(1), infer(TRIAL_ROWS)
    spent_s = alone_s + together_s
    for _ in range(_ROUNDS - 1):
        if spent_s > _LIMIT_S:
            break
        alone_s, together_s = min(alone_s, infer(1)), min(together_s, infer(TRIAL_ROWS))
        spent_s += alone_s + together_s
    return (together_s + _OVERHEAD_S) / TRIAL_ROWS <= _PAYS_BELOW * (alone_s + _OVERHEAD_S)
