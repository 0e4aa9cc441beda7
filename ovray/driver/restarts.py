"""Decides when a replica that was lost, or could not start, is started again, and when it is given up for good.

May not enter: starting (lifecycle.py), the health of hosts, clocks: time arrives as a number.
"""

import math
from dataclasses import dataclass

from ovray.core.ids import ReplicaId
from ovray.errors import CompileError, ConfigError, OvrayError, ReplicaLostError

#: A replica that dies is started again at once.  One that dies as soon as it is ready, or does not get so far,
#: waits so long before its next start but one, and then twice as long each time.  That is for its host's sake: how
#: much work a replica gets that keeps dying is bounded by the scheduler, where it rests and poison is given up.
BACK_OFF_S = 1.0
BACK_OFF_MAX_S = 30.0

#: A replica that was ready for so long did not die of being started.
SHORT_LIFE_S = 1.0

#: Starts in a row that came to nothing, after which no further one is made.
MAX_FAILED_STARTS = 3


@dataclass(slots=True, kw_only=True)
class _Past:
    """What is remembered of one replica."""

    #: When its present life began to work; ``inf`` while it does not.
    ready_at_s: float = math.inf
    has_worked: bool = False
    #: Short lives and failed starts in a row.
    strikes: int = 0
    failed_starts: int = 0


class Restarts:
    """Keeps the times at which replicas are to be started again."""

    def __init__(self) -> None:
        self._past: dict[ReplicaId, _Past] = {}
        self._due_s: dict[ReplicaId, float] = {}

    @property
    def planned(self) -> tuple[ReplicaId, ...]:
        """Replicas that are to be started again, soonest first."""
        return tuple(sorted(self._due_s, key=self._due_s.__getitem__))

    def due(self, now_s: float) -> list[ReplicaId]:
        """Returns those whose time has come; they stay until ``started``."""
        return [replica for replica in self.planned if self._due_s[replica] <= now_s]

    def started(self, replica: ReplicaId) -> None:
        self._due_s.pop(replica, None)

    def ready(self, replica: ReplicaId, now_s: float) -> None:
        past = self._of(replica)
        past.ready_at_s, past.has_worked, past.failed_starts = now_s, True, 0

    def lost(self, replica: ReplicaId, now_s: float) -> None:
        """Plans a start for a replica whose process is gone."""
        past = self._of(replica)
        past.strikes = past.strikes + 1 if now_s - past.ready_at_s < SHORT_LIFE_S else 0
        past.ready_at_s = math.inf
        self._plan(replica, now_s)

    def could_not_start(self, replica: ReplicaId, error: Exception, now_s: float) -> None:
        """Plans another start, where one may come to more."""
        past = self._of(replica)
        past.failed_starts += 1
        past.strikes += 1
        if past.failed_starts < MAX_FAILED_STARTS and _may_pass(error, past):
            self._plan(replica, now_s)

    def forget(self, replica: ReplicaId) -> None:
        """Plans nothing more for a replica, and holds nothing against another of its name."""
        self._due_s.pop(replica, None)
        self._past.pop(replica, None)

    def _plan(self, replica: ReplicaId, now_s: float) -> None:
        past = self._of(replica)
        wait_s = 0.0 if past.strikes < 2 else min(BACK_OFF_S * 2.0 ** (past.strikes - 2), BACK_OFF_MAX_S)
        self._due_s[replica] = now_s + wait_s

    def _of(self, replica: ReplicaId) -> _Past:
        return self._past.setdefault(replica, _Past())


def _may_pass(error: Exception, past: _Past) -> bool:
    """Says whether what kept a replica from starting may be over at the next try.

    A device that refuses the model will do so again.  Of all else, what a replica says at its very first start is
    for the caller to mend; one that has worked before may only have met the rest of its predecessor, whose cores
    are not free yet.
    """
    if isinstance(error, (CompileError, ConfigError)):
        return False
    return past.has_worked or isinstance(error, ReplicaLostError) or not isinstance(error, OvrayError)
