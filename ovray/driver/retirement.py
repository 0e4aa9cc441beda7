"""Ends replicas that several drivers use and that are wanted no more, so that no request is lost or runs twice.

1. The keeper marks them; drivers, which look every second, give them nothing more.
2. Who has not looked yet is refused from now on, and asks another replica: what is refused has not run.
3. When a replica has answered all that it took, and its answers had time to travel, it is ended.

May not enter: who is to leave (lifecycle.py), Ray.  Caller: pool_keeper.py, from its one thread.
"""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ovray.core.ids import ReplicaId

#: What drivers get to notice: several of their looks.
NOTICE_S = 3.0

#: What answers get to reach their drivers.
TRAVEL_S = 0.5


@dataclass(slots=True, kw_only=True)
class _Leaver:
    since_s: float
    #: The question how many requests it has, while that is under way.
    asked: "Future[Any] | None" = None
    #: What it said last, and since when it says so.
    requests: float = math.inf
    unchanged_since_s: float = math.inf


class Retirement:
    """Leads replicas out."""

    def __init__(self, ask: Callable[[ReplicaId], "Future[Any]"], patience_s: float) -> None:
        """Stores.

        Args:
            ask: has a replica take no more requests, and counts those that it has.
            patience_s: a replica that holds requests and gets no further with them for so long is ended all the
                same; its drivers give what it held to others.
        """
        self._ask = ask
        self._patience_s = patience_s
        self._leavers: dict[ReplicaId, _Leaver] = {}

    def look(self, leaving: Iterable[ReplicaId], now_s: float) -> list[ReplicaId]:
        """Returns those of the leaving replicas that can be ended now; to be called again and again."""
        there = set(leaving)
        self._leavers = {id: leaver for id, leaver in self._leavers.items() if id in there}
        for replica in there:
            self._leavers.setdefault(replica, _Leaver(since_s=now_s))
        return [id for id, leaver in self._leavers.items() if self._may_end(id, leaver, now_s)]

    def _may_end(self, replica: ReplicaId, leaver: _Leaver, now_s: float) -> bool:
        if now_s - leaver.since_s < NOTICE_S:
            return False
        if leaver.asked is None:
            leaver.asked = self._ask(replica)
            leaver.unchanged_since_s = min(leaver.unchanged_since_s, now_s)
        elif leaver.asked.done():
            # One that cannot answer is as good as gone; whoever started it hears of that, too.
            requests = 0 if leaver.asked.exception() is not None else leaver.asked.result()
            leaver.asked = None
            if requests != leaver.requests:
                leaver.requests, leaver.unchanged_since_s = requests, now_s
        patience_s = TRAVEL_S if leaver.requests == 0 else self._patience_s
        return now_s - leaver.unchanged_since_s >= patience_s
