"""Asks Ray, again and again, which of its nodes live and which are about to leave.

May not enter: what follows from it (lifecycle.py).  On a thread of its own, since a head that is gone keeps those
who ask it waiting.
"""

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.core.generated import gcs_pb2

from ovray.driver.messages import ClusterSeen

#: How often is asked: a drained host is noticed within this time.  An answer costs less than a millisecond.
LOOK_S = 1.0

#: How long the head may take to answer; a healthy one takes a millisecond.
ANSWER_TIMEOUT_S = 5.0


# Ray's annotations do not know what protobuf makes.
_ALIVE: Any = gcs_pb2.GcsNodeInfo.ALIVE  # type: ignore[attr-defined]


class ClusterWatch:
    """Tells of every look that Ray answered; says nothing while Ray says nothing."""

    def __init__(self, tell: Callable[[ClusterSeen], None]) -> None:
        self._tell = tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_until_over, name="ovray-cluster-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; a look that is under way may still be told of."""
        self._over.set()

    def _look_until_over(self) -> None:
        # Held by this thread alone, so that it does not mistake a later connection of this process for its own.
        worker: Any = global_worker
        gcs = worker.gcs_client
        while not self._over.wait(LOOK_S):
            try:
                nodes = gcs.get_all_node_info(timeout=ANSWER_TIMEOUT_S)
                draining = gcs.get_draining_nodes(timeout=ANSWER_TIMEOUT_S)
            except ray.exceptions.RayError:
                continue  # who waits for the next look notices that it does not come
            alive = frozenset(node.hex() for node, info in nodes.items() if info.state == _ALIVE)
            self._tell(ClusterSeen(alive=alive, draining=frozenset(draining) & alive))
