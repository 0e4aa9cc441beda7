"""Decides whom to trust with work: evicts, probes and readmits replicas, and notices silent ones.

May not enter: work.  A silent replica is not declared lost here: that is for its driver, which can look.
"""

import math
import random

from ovray.core.commands import Command, ProbeReplica
from ovray.core.heap import LazyHeap
from ovray.core.ids import ReplicaId
from ovray.core.ledger import Ledger, Replica, ReplicaState
from ovray.core.settings import SchedulerSettings

#: Waits are spread by this part, so that replicas that failed together are not probed together.
_SPREAD = 0.1

_BACK_OFF_DOUBLINGS_MAX = 32


class Health:
    """Keeps the alarms of replicas that are watched or wait to be readmitted."""

    def __init__(self, ledger: Ledger, settings: SchedulerSettings, chance: random.Random) -> None:
        self._ledger = ledger
        self._settings = settings
        self._chance = chance
        #: Nobody is taken for silent sooner.
        self._patience_min_s = min(settings.stalled_after_min_s, settings.stalled_after_unknown_s)
        #: Replicas that hold work, by when to look whether they have been heard of.
        self._looks: LazyHeap[ReplicaId, float] = LazyHeap()
        #: Evicted and resting replicas, by when their wait is over.
        self._waits: LazyHeap[ReplicaId, float] = LazyHeap()

    @property
    def next_alarm_s(self) -> float:
        look_s, wait_s = self._looks.first_key(), self._waits.first_key()
        if look_s is None:
            return math.inf if wait_s is None else wait_s
        return look_s if wait_s is None or look_s < wait_s else wait_s

    def completed(self, replica: Replica) -> None:
        """Note a success, and forgive what was before after enough of them."""
        replica.failures_in_a_row = 0
        self.heard(replica)
        if replica.strikes:
            replica.completions_since_strike += 1
            if replica.completions_since_strike >= self._settings.forgiven_after_completions:
                replica.strikes = 0

    def failed(self, replica: Replica) -> None:
        """Note a failure of the device, and evict a replica that has too many in a row."""
        self.heard(replica)
        replica.failures_in_a_row += 1
        is_ready = replica.state is ReplicaState.READY
        if is_ready and replica.failures_in_a_row >= self._settings.evict_after_failures:
            self._ledger.counters.evictions += 1
            replica.evictions += 1
            self._strike(replica)
            self._put_aside(replica)

    def refused(self, replica: Replica) -> None:
        """Note that the caller's input failed, for which the replica is not to blame."""
        self.heard(replica)

    def probe_failed(self, replica: Replica) -> None:
        self.heard(replica)
        self._strike(replica)
        self._put_aside(replica)

    def lost(self, replica: Replica) -> None:
        self._ledger.counters.losses += 1
        self._strike(replica)
        replica.state = ReplicaState.LOST
        replica.is_stalled = False
        self.forget(replica)

    def returned(self, replica: Replica) -> None:
        """Let a replica that is back after a loss work at once the first time, later after a growing wait."""
        if replica.strikes > 1:
            longest_s = self._settings.rest_after_loss_max_s
            self._wait(replica, ReplicaState.RESTING, self._wait_s(replica.strikes - 1, longest_s))

    def forget(self, replica: Replica) -> None:
        self._looks.discard(replica.id)
        self._waits.discard(replica.id)
        self._ledger.touched[replica] = None

    def watch(self, replica: Replica) -> None:
        """Look after a replica that holds work, or a probe."""
        if not _owes_an_answer(replica) or replica.is_stalled:
            return
        planned_s = self._looks.key_of(replica.id)
        # A look that comes too early is put off then; so most calls change nothing.
        if planned_s is not None and planned_s <= replica.heard_s + self._patience_min_s:
            return
        silent_s = replica.heard_s + self._patience_s(replica)
        if planned_s is None or silent_s < planned_s:
            self._looks.set(replica.id, silent_s)

    def is_watched(self, replica: Replica, now_s: float) -> bool:
        """Say whether a replica that is given work now is looked at as soon as it may be taken for silent."""
        planned_s = self._looks.key_of(replica.id)
        return planned_s is not None and planned_s <= now_s + self._patience_min_s

    def wake(self) -> tuple[list[Command], list[Replica]]:
        """Act on what is due; return the commands and the replicas found silent."""
        commands: list[Command] = []
        while (wait_s := self._waits.first_key()) is not None and wait_s <= self._ledger.now_s:
            commands.extend(self._end_wait())
        silent = []
        while (look_s := self._looks.first_key()) is not None and look_s <= self._ledger.now_s:
            silent.extend(self._look())
        return commands, silent

    def _end_wait(self) -> list[Command]:
        replica_id = self._waits.first()
        assert replica_id is not None
        self._waits.discard(replica_id)
        replica = self._ledger.replicas[replica_id]
        self._ledger.touched[replica] = None
        if replica.state is ReplicaState.RESTING:
            replica.state = ReplicaState.READY
            return []
        replica.state = ReplicaState.PROBING
        replica.heard_s = self._ledger.now_s
        return [ProbeReplica(replica=replica_id)]

    def _look(self) -> list[Replica]:
        replica_id = self._looks.first()
        assert replica_id is not None
        self._looks.discard(replica_id)
        replica = self._ledger.replicas[replica_id]
        if not _owes_an_answer(replica):
            return []
        silent_s = replica.heard_s + self._patience_s(replica)
        if silent_s > self._ledger.now_s:
            self._looks.set(replica_id, silent_s)
            return []
        replica.is_stalled = True
        self._ledger.touched[replica] = None
        return [replica]

    def _patience_s(self, replica: Replica) -> float:
        """Return how long a replica may be silent with what it holds."""
        rate = replica.rate.rows_per_s
        if rate is None or not replica.rate.is_proven:
            return self._settings.stalled_after_unknown_s
        chunk_rows = next((dispatch.work.rows for dispatch in replica.chunks.values()), 0)
        # A probe is one row.
        request_rows = next((dispatch.work.rows for dispatch in replica.requests.values()), 1) * replica.nireq
        expected_s = max(chunk_rows, request_rows) / rate
        return max(self._settings.stalled_after_min_s, self._settings.stalled_after_times * expected_s)

    def heard(self, replica: Replica) -> None:
        """Note a sign of life."""
        replica.heard_s = self._ledger.now_s
        replica.is_stalled = False
        self._ledger.touched[replica] = None

    def _strike(self, replica: Replica) -> None:
        replica.strikes += 1
        replica.completions_since_strike = 0

    def _put_aside(self, replica: Replica) -> None:
        others = (other.state for other in self._ledger.replicas.values() if other is not replica)
        is_last = ReplicaState.READY not in others
        settings = self._settings
        longest_s = settings.readmit_last_after_max_s if is_last else settings.readmit_after_max_s
        self._wait(replica, ReplicaState.EVICTED, self._wait_s(replica.strikes, longest_s))

    def _wait_s(self, times: int, longest_s: float) -> float:
        doublings = min(times - 1, _BACK_OFF_DOUBLINGS_MAX)
        return min(self._settings.readmit_after_s * 2.0**doublings, longest_s)

    def _wait(self, replica: Replica, state: ReplicaState, wait_s: float) -> None:
        replica.state = state
        self._waits.set(
            replica.id, self._ledger.now_s + wait_s * self._chance.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)
        )
        self._ledger.touched[replica] = None


def _owes_an_answer(replica: Replica) -> bool:
    return replica.outstanding > 0 or replica.state is ReplicaState.PROBING
