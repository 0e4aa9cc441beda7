"""Functions that a scoring job of the bench calls before inference, each with a row that it does not survive.

They travel to the replicas by name; the file named in ``OVRAY_TEST_FUSE`` says whether, and how often, they act.
"""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]

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


def with_hunger(columns: Columns) -> Columns:
    """Take more memory than there is, in the one process that finds its own number on the table."""
    if Path(os.environ["TMPDIR"], "eat").exists():
        eaten = [np.ones(_STEP_BYTES, np.uint8) for _ in range(MEAL_BYTES // _STEP_BYTES)]
        raise AssertionError(f"{sum(map(len, eaten))} bytes were to be had")
    return {"pixels": columns["pixels"]}
