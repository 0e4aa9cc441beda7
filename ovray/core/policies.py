"""Decides which replica gets the next piece of work: one small class for each policy, each readable alone.

A policy is told of every replica that may get work (``open``: and has room; ``close``: holds all it may;
``remove``: may not) and asked to ``pick``.  Nothing in here is O(number of replicas) for one pick.
May not enter: queues, windows, retries.  Who asks: lanes.py.  How to add one: README.md.
"""

from bisect import insort
from collections import deque
from enum import Enum
from operator import neg
from typing import ClassVar, Protocol

from ovray.core.heap import LazyHeap
from ovray.core.ids import ReplicaId
from ovray.core.speed_classes import SpeedClass, speed_of


class Candidate(Protocol):
    """What a policy may know of a replica; it reads and never writes."""

    @property
    def id(self) -> ReplicaId: ...

    @property
    def order(self) -> int: ...

    @property
    def device_rank(self) -> int | None: ...

    @property
    def outstanding(self) -> int: ...

    @property
    def free_at_s(self) -> float: ...

    @property
    def rows_per_s(self) -> float | None: ...

    def expected_s(self, rows: int, now_s: float) -> float: ...


class Policy(Protocol):
    """Chooses among the replicas that it was told of."""

    #: Whether ``pick`` may say ``None`` although a replica is open.
    holds_back: ClassVar[bool]

    def open(self, candidate: Candidate) -> None:
        """Take note of a replica that has room, or of a change of what it holds."""

    def close(self, candidate: Candidate) -> None:
        """Take note of a replica that works but has no room."""

    def remove(self, candidate: Candidate) -> None:
        """Forget a replica; one that is not known does no harm."""

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> ReplicaId | None:
        """Choose an open replica for ``rows`` of the ``rows_waiting``; ``None`` where none is open or worth it."""

    def share(self, candidate: Candidate) -> float | None:
        """Return which part of divisible work suits it; ``None`` where that cannot be said yet."""


class DevicePriority:
    """Picks the first device of the user's order that has room, as MULTI does by default.

    Suits devices that are each much faster than the next, at low load.  Does not suit many unequal replicas:
    it fills the first to the brim before it looks at the second.
    """

    holds_back: ClassVar[bool] = False

    def __init__(self) -> None:
        self._members: set[ReplicaId] = set()
        self._open: LazyHeap[ReplicaId, tuple[int, int]] = LazyHeap()

    def open(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.set(candidate.id, (candidate.device_rank or 0, candidate.order))

    def close(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.discard(candidate.id)

    def remove(self, candidate: Candidate) -> None:
        self._members.discard(candidate.id)
        self._open.discard(candidate.id)

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> ReplicaId | None:
        return self._open.first()

    def share(self, candidate: Candidate) -> float | None:
        return 1.0 / len(self._members)


class RoundRobin:
    """Picks replicas in turn, passing over those without room.

    Suits equal replicas and equal requests.  Does not suit unequal ones: each gets the same, so the slowest rule.
    """

    holds_back: ClassVar[bool] = False

    def __init__(self) -> None:
        self._members: set[ReplicaId] = set()
        #: Each member at most once, the next one first; may hold some that closed or left meanwhile.
        self._ring: deque[ReplicaId] = deque()
        self._in_ring: set[ReplicaId] = set()
        self._open: set[ReplicaId] = set()

    def open(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.add(candidate.id)
        if candidate.id not in self._in_ring:
            self._in_ring.add(candidate.id)
            self._ring.append(candidate.id)

    def close(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.discard(candidate.id)

    def remove(self, candidate: Candidate) -> None:
        self._members.discard(candidate.id)
        self._open.discard(candidate.id)

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> ReplicaId | None:
        while self._ring:
            replica = self._ring.popleft()
            self._in_ring.discard(replica)
            if replica in self._open:
                self._in_ring.add(replica)
                self._ring.append(replica)
                return replica
        return None

    def share(self, candidate: Candidate) -> float | None:
        return 1.0 / len(self._members)


class LeastOutstanding:
    """Picks the replica that holds the fewest requests and chunks, as most load balancers do.

    Suits equal replicas with requests of unequal length.  Does not suit unequal replicas: an idle slow one wins
    against a fast one that would be done in a moment.
    """

    holds_back: ClassVar[bool] = False

    def __init__(self) -> None:
        self._members: set[ReplicaId] = set()
        self._open: LazyHeap[ReplicaId, int] = LazyHeap()

    def open(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.set(candidate.id, candidate.outstanding)

    def close(self, candidate: Candidate) -> None:
        self._members.add(candidate.id)
        self._open.discard(candidate.id)

    def remove(self, candidate: Candidate) -> None:
        self._members.discard(candidate.id)
        self._open.discard(candidate.id)

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> ReplicaId | None:
        return self._open.first()

    def share(self, candidate: Candidate) -> float | None:
        return 1.0 / len(self._members)


class FastestCompletion:
    """Picks the replica that is expected to finish this work first, and waits for a better one where that pays.

    A replica whose rate is unknown and that is idle goes first, so that every rate becomes known.  A slow one is
    held back while the faster ones are expected to get through all that waits before it would be done with this.
    Suits unequal replicas.  On equal ones it does what LeastOutstanding does, at a little more cost.

    Replicas are kept in classes of similar speed, some thirty at the most: a pick looks at the best of each.

    *Source:* expected completion is the speed-aware join-the-shortest-queue of Gardner et al.; holding back is the
    threshold policy for heterogeneous servers (Lin and Kumar, 1984).
    """

    holds_back: ClassVar[bool] = True

    def __init__(self) -> None:
        self._classes: dict[int, SpeedClass[Candidate]] = {}
        #: Keys of ``_classes``, fastest first.
        self._fastest_first: list[int] = []
        #: Which class a member is booked in.
        self._class_of: dict[ReplicaId, int] = {}
        #: Members with room whose rate is unknown, by what they hold.
        self._unknown: LazyHeap[Candidate, tuple[int, int]] = LazyHeap()
        self._total_rate = 0.0
        #: Members whose rate is unknown, with or without room.
        self._strangers: set[ReplicaId] = set()

    def open(self, candidate: Candidate) -> None:
        rate = candidate.rows_per_s
        if rate is None:
            self.remove(candidate)
            self._strangers.add(candidate.id)
            self._unknown.set(candidate, (candidate.outstanding, candidate.order))
        else:
            before = self._class_for(candidate, rate).open(candidate, rate)
            self._total_rate += rate - before

    def close(self, candidate: Candidate) -> None:
        rate = candidate.rows_per_s
        if rate is None:
            self.remove(candidate)
            self._strangers.add(candidate.id)
        else:
            before = self._class_for(candidate, rate).close(candidate, rate)
            self._total_rate += rate - before

    def remove(self, candidate: Candidate) -> None:
        self._unknown.discard(candidate)
        self._strangers.discard(candidate.id)
        speed = self._class_of.pop(candidate.id, None)
        if speed is not None:
            speed_class = self._classes[speed]
            self._total_rate -= speed_class.remove(candidate)
            if speed_class.is_empty:  # rates drift through many classes, and each would be looked at at every pick
                del self._classes[speed]
                self._fastest_first.remove(speed)
            if not self._class_of:
                self._total_rate = 0.0

    def pick(self, rows: int, rows_waiting: int, now_s: float) -> ReplicaId | None:
        stranger = self._unknown.first()
        if stranger is not None and stranger.outstanding == 0:
            return stranger.id
        best: Candidate | None = None
        best_s = float("inf")
        busy_rate = 0.0
        backlog_rows = float(rows_waiting)
        for speed in self._fastest_first:
            speed_class = self._classes[speed]
            candidate = speed_class.first_open(now_s)
            if candidate is not None:
                assert candidate.rows_per_s is not None, "it is booked by its rate"
                at_least_s = rows / candidate.rows_per_s  # and slower ones need longer, even where they idle
                if now_s + at_least_s >= best_s or at_least_s * busy_rate > backlog_rows:
                    return best.id if best else None
                done_s = candidate.expected_s(rows, now_s)
                if done_s < best_s and (done_s - now_s) * busy_rate <= backlog_rows:
                    best, best_s = candidate, done_s
            busy_rate += speed_class.busy_rate
            # When the last row is taken, each still has half a request to do on average.
            backlog_rows += speed_class.backlog_rows(now_s) + rows * speed_class.busy_count / 2
        best = best or stranger
        return best.id if best else None

    def share(self, candidate: Candidate) -> float | None:
        if candidate.rows_per_s is None:
            return None
        # Strangers are taken to be as fast as the others on average; else the first known would get everything.
        known = len(self._class_of)
        return candidate.rows_per_s / self._total_rate * known / (known + len(self._strangers))

    def _class_for(self, candidate: Candidate, rate: float) -> SpeedClass[Candidate]:
        speed = speed_of(rate)
        booked_in = self._class_of.get(candidate.id)
        if booked_in == speed:
            return self._classes[speed]
        if booked_in is not None or candidate.id in self._strangers:
            self.remove(candidate)
        if speed not in self._classes:
            self._classes[speed] = SpeedClass()
            insort(self._fastest_first, speed, key=neg)
        self._class_of[candidate.id] = speed
        return self._classes[speed]


class SchedulePolicy(Enum):
    """Names the policies, spelt as OpenVINO's SCHEDULE_POLICY spells those it has."""

    DEVICE_PRIORITY = "DEVICE_PRIORITY"
    ROUND_ROBIN = "ROUND_ROBIN"
    LEAST_OUTSTANDING = "LEAST_OUTSTANDING"
    FASTEST_COMPLETION = "FASTEST_COMPLETION"


#: The registry: a new policy is a class above and a line here.
POLICIES: dict[SchedulePolicy, type[Policy]] = {
    SchedulePolicy.DEVICE_PRIORITY: DevicePriority,
    SchedulePolicy.ROUND_ROBIN: RoundRobin,
    SchedulePolicy.LEAST_OUTSTANDING: LeastOutstanding,
    SchedulePolicy.FASTEST_COMPLETION: FastestCompletion,
}
