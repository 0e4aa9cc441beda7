"""What a scoring job of the bench calls before inference: user code that kills, eats, or takes its time."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]

#: For each row; a replica has two threads that take it.
LEISURE_S = 0.02

#: The row that no process survives.
POISON_ROW = 4_321

#: Eaten in steps, so that the kernel notices while more is wanted.
MEAL_BYTES = 4 << 30
_STEP_BYTES = 16 << 20


def with_poison(columns: Columns) -> Columns:
    """Kill the process that is to prepare one certain row."""
    if POISON_ROW in columns["number"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pixels": columns["pixels"]}


def with_leisure(columns: Columns) -> Columns:
    """Make a small model slow, until the test has seen enough and puts ``hurry`` into the shared folder."""
    if not Path(os.environ["OVRAY_TEST_SHARED"], "hurry").exists():
        time.sleep(LEISURE_S * len(columns["number"]))
    return {"pixels": columns["pixels"]}


def with_hunger(columns: Columns) -> Columns:
    """Take more memory than there is, in the one process that finds its own number on the table."""
    if Path(os.environ["TMPDIR"], "eat").exists():
        eaten = [np.ones(_STEP_BYTES, np.uint8) for _ in range(MEAL_BYTES // _STEP_BYTES)]
        raise AssertionError(f"{sum(map(len, eaten))} bytes were to be had")
    return {"pixels": columns["pixels"]}
