"""Waits for conditions, each with an end.

May not enter: what is waited for.
"""

import time
from collections.abc import Callable

#: What a busy machine may take for anything that is not measured.
DEADLINE_S = 240.0

#: Between looks; more where a look costs those who are waited for.
POLL_S = 0.01


def wait_until(condition: Callable[[], object], timeout_s: float = DEADLINE_S, *, poll_s: float = POLL_S) -> bool:
    """Poll until a condition holds; returns whether it did in time."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(poll_s)
    return True


def until(condition: Callable[[], object], timeout_s: float = DEADLINE_S) -> None:
    """Poll until a condition holds; fails where it does not in time."""
    assert wait_until(condition, timeout_s), f"not within {timeout_s:g} s"
