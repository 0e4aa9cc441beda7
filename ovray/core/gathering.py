"""Says for how long a driver may leave replies alone, so that several come together.

Of several replies in a row all but the first are cheap: an inference on the same core leaves nothing in its caches
of what a reply touches.  May not enter: waiting, and whoever does it.
"""

import math
from collections.abc import Iterable

from ovray.core.ledger import Replica

#: Fewer are not worth a wait.
_REPLIES = 2

#: What callers may hear of a result later than they could.
_MAX_S = 0.02


def gathering_s(replicas: Iterable[Replica], now_s: float, gathered_s: float) -> float:
    """Returns half of the time in which no replica can run out of requests, as far as speeds are known.

    Args:
        replicas: all that there are; those that get nothing new do not count.
        now_s: the time.
        gathered_s: for how long replies were left alone before this; so much earlier may have happened what was
            heard now.

    Returns:
        Seconds; 0 where a replica has nothing to spare, or fewer than two replies would come.
    """
    spare_s, replies_per_s = math.inf, 0.0
    for replica in replicas:
        if not replica.is_eligible:
            continue
        held, rows_per_s = len(replica.requests), replica.rows_per_s
        # Of those that run all but one may be as good as done, so only whole rounds are certain.
        rounds = (held + 1) // replica.nireq - 1
        if rows_per_s is None or rounds <= 0:
            return 0.0
        requests_per_s = rows_per_s * held / replica.rows_outstanding
        spare_s = min(spare_s, replica.heard_s + rounds * replica.nireq / requests_per_s - now_s - gathered_s)
        if spare_s <= 0:
            return 0.0
        replies_per_s += requests_per_s
    wait_s = min(spare_s / 2, _MAX_S)
    return wait_s if wait_s * replies_per_s >= _REPLIES else 0.0
