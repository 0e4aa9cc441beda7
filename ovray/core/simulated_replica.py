"""A modelled replica: how long work takes there, and in which order it is done.

May not enter: the scheduler, messages, faults other than a change of speed.  Caller: simulation.py.
"""

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ovray.core.ids import DispatchId, ReplicaId

#: A drawn time is never below this part of the mean.
_SHORTEST_SHARE = 0.05

#: A chunk is inferred in batches of this many rows.
_ROWS_OF_ONE_INFERENCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaModel:
    """Describes one simulated replica, in the words of the SIM device."""

    id: ReplicaId
    #: Time of one row in one request.
    row_s: float
    #: Requests that run side by side; a chunk has all of them.
    nireq: int = 1
    compile_s: float = 0.0
    #: Relative standard deviation of the time of one inference.
    jitter: float = 0.0
    device: str = "SIM"

    @property
    def rows_per_s(self) -> float:
        return self.nireq / self.row_s


@dataclass(slots=True, eq=False, kw_only=True)
class Item:
    """One dispatch at a replica."""

    dispatch: DispatchId
    rows: int
    is_chunk: bool
    started_s: float = math.nan


@dataclass(slots=True, eq=False, kw_only=True)
class SimulatedReplica:
    """One modelled process: first come first served, ``nireq`` requests or one chunk at a time."""

    model: ReplicaModel
    chance: random.Random
    is_up: bool = False
    #: Goes up with every death, so that what an earlier life started is recognised.
    life: int = 0
    waiting: deque[Item] = field(default_factory=deque)
    running: dict[DispatchId, Item] = field(default_factory=dict)
    #: Seconds of work, those with a part of ``nireq`` in use counted in part.
    busy_s: float = 0.0
    #: When it last ended a piece of work.
    last_end_s: float = 0.0
    #: Speed from a time on, ascending; 1 before the first.
    speeds: list[tuple[float, float]] = field(default_factory=list)

    def receive(self, items: Iterable[Item]) -> None:
        self.waiting.extend(items)

    def start_next(self, now_s: float) -> list[tuple[Item, float]]:
        """Start what there is room for; return each with the time at which it will end."""
        started = []
        while self.waiting and self._has_room_for(self.waiting[0]):
            item = self.waiting.popleft()
            item.started_s = now_s
            self.running[item.dispatch] = item
            started.append((item, self._end_s(now_s, self._draw_work_s(item))))
        return started

    def end(self, dispatch: DispatchId, now_s: float) -> bool:
        """Take a piece of work off, done or cancelled; say whether it was there."""
        item = self.running.pop(dispatch, None)
        if item is not None:
            share = 1.0 if item.is_chunk else 1.0 / self.model.nireq
            self.busy_s += (now_s - item.started_s) * share
            self.last_end_s = now_s
            return True
        waiting = len(self.waiting)
        self.waiting = deque(item for item in self.waiting if item.dispatch != dispatch)
        return len(self.waiting) < waiting

    def die(self, now_s: float) -> None:
        for dispatch in list(self.running):
            self.end(dispatch, now_s)
        self.waiting.clear()
        self.is_up = False
        self.life += 1

    def _has_room_for(self, item: Item) -> bool:
        if item.is_chunk:
            return not self.running
        return len(self.running) < self.model.nireq and not any(other.is_chunk for other in self.running.values())

    def _draw_work_s(self, item: Item) -> float:
        """Return how long an item takes at nominal speed.

        A chunk is a run of inferences of a few rows each, which deviate independently: their sum is drawn.
        """
        mean_s = item.rows * self.model.row_s / (self.model.nireq if item.is_chunk else 1)
        if self.model.jitter == 0.0:
            return mean_s
        inferences = max(1.0, item.rows / _ROWS_OF_ONE_INFERENCE) if item.is_chunk else 1.0
        return mean_s * max(_SHORTEST_SHARE, self.chance.gauss(1.0, self.model.jitter / math.sqrt(inferences)))

    def _end_s(self, now_s: float, work_s: float) -> float:
        """Return when ``work_s`` of nominal work begun now is done, through all changes of speed."""
        speed = 1.0
        for at_s, new_speed in self.speeds:
            if at_s > now_s:
                if speed > 0.0 and now_s + work_s / speed <= at_s:
                    break
                work_s -= (at_s - now_s) * speed
                now_s = at_s
            speed = new_speed
        return now_s + work_s / speed if speed > 0.0 else math.inf
