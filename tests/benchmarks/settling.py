"""Waits until a machine has nothing else to do than what is measured.

May not enter: what is measured.
"""

import os
import sys

import psutil

from tests.waiting import wait_until

#: Nothing else runs where the CPUs had less to do than this.
_BELOW_PERCENT = 10.0
_FOR_S = 0.5
_TIMEOUT_S = 60.0

#: What a replica takes of a core while it has nothing to do: Ray's threads in its process wake by themselves.
_IDLE_REPLICA_CORES = 0.004


def let_it_settle(replicas: int = 1) -> None:
    """Waits until what was started has started: a Ray and its first workers take some seconds of every core.

    Args:
        replicas: so many were started.
    """
    below_percent = _BELOW_PERCENT + 100 * _IDLE_REPLICA_CORES * replicas / (os.cpu_count() or 1)
    if not wait_until(lambda: psutil.cpu_percent(_FOR_S) < below_percent, _TIMEOUT_S):
        print("this machine does something else meanwhile: figures are not worth much", file=sys.stderr)
