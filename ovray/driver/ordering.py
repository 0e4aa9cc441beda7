"""Tells the scheduler which replicas are to serve, whenever how they stand has changed.

May not enter: the choice itself (core/serving_order.py), threads.  Caller: request_loop.py.
"""

from ovray.core import events
from ovray.core.ids import ReplicaId
from ovray.core.ledger import ReplicaState
from ovray.core.serving_order import Candidate, ServingOrder, Standing
from ovray.core.snapshot import Snapshot
from ovray.driver.lifecycle import ReplicaSet


class Ordering:
    """Remembers what the scheduler was told last."""

    def __init__(self, order: ServingOrder, replicas: ReplicaSet) -> None:
        """Stores.

        Args:
            order: chooses.
            replicas: those that were asked for.
        """
        self._order = order
        self._replicas = replicas
        self._told: tuple[ReplicaId, ...] | None = None
        self._released: set[ReplicaId] = set()

    def look(self, snapshot: Snapshot) -> list[events.Event]:
        """Returns what the scheduler is to hear; nothing where nothing has changed."""
        choice = self._order.choose(self._candidates(snapshot))
        news: list[events.Event] = []
        if choice.order != self._told:
            self._told = choice.order
            news.append(events.PrioritiesChanged(devices=choice.order))
        for replica in choice.released:
            if replica not in self._released:
                self._released.add(replica)
                news.append(events.ReplicaDraining(replica=replica))
        return news

    def _candidates(self, snapshot: Snapshot) -> list[Candidate]:
        ready = {
            replica.id
            for replica in snapshot.replicas
            if replica.state is ReplicaState.READY and not replica.is_stalled
        }
        starting = set(self._replicas.starting)

        def standing(replica: ReplicaId) -> Standing:
            if replica in ready:
                return Standing.READY
            if replica in self._replicas.reports:
                return Standing.AWAY
            return Standing.STARTING if replica in starting else Standing.REFUSED

        dismissed = set(self._replicas.dismissed)
        return [
            Candidate(id=spec.id, rank=spec.rank, standing=standing(spec.id))
            for spec in self._replicas.specs
            if spec.id not in dismissed
        ]
