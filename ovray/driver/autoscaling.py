"""Tells Ray's autoscaler which hosts are missing, and takes that back at the end.

Ray keeps one such request for the whole cluster: the last one counts, whoever made it, until another takes its
place.  The autoscaler holds it against what nodes have in total, not against what is free there
(``ray.autoscaler.sdk.request_resources``, Ray 2.60).  So it names all that is to be there at once: each node that
there was at the start, whole, and one bundle for each replica that has no place on these.  Nodes that come do not
change that, and so none is asked for twice; a node of the first ones that goes is replaced.

May not enter: what happens on hosts that join (newcomers.py).
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray._private.state import total_resources_per_node
from ray.autoscaler.sdk import request_resources

from ovray.devices.records import ReplicaSpec

_log = logging.getLogger(__name__)

#: How long a job that found no CPU at all waits for the first host that was asked for: clouds need minutes.
FIRST_HOST_TIMEOUT_S = 900.0

#: What taking the request back may take; a head that is gone has no use for it.
WITHDRAW_TIMEOUT_S = 5.0

Bundles = list[dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Says what is to be there."""

    #: CPUs of each node that there was at the start, by Ray's node id.
    nodes: Mapping[str, float] = field(default_factory=dict)
    replicas: int = 0
    #: Of Ray's, for each replica that is missing.
    cpus_each: int = 1
    #: Whether something was announced already, by whoever waited for the first host.
    is_announced: bool = False

    def bundles(self, alive: frozenset[str], placed: Sequence[ReplicaSpec]) -> Bundles:
        """Returns what the cluster is to be able to hold, whoever holds it."""
        there = {node: cpus for node, cpus in self.nodes.items() if node in alive}
        missing = self.replicas - sum(spec.node_id in there for spec in placed)
        if missing <= 0:
            return []
        return [{"CPU": cpus} for cpus in there.values() if cpus > 0] + [{"CPU": self.cpus_each}] * missing


def cpus_of_nodes() -> Mapping[str, float]:
    """Returns the CPUs of every node in Ray's books, by its id."""
    books: Mapping[str, Mapping[str, float]] = total_resources_per_node()  # type: ignore[no-untyped-call]
    return {node: resources.get("CPU", 0.0) for node, resources in books.items()}


class Demand:
    """Keeps the autoscaler informed.  Every call returns at once, save ``withdraw``."""

    def __init__(self, asked: Asked, announce: Callable[[Bundles], None] | None = None) -> None:
        """Stores.

        Args:
            asked: what is to be there.
            announce: tells the autoscaler; ``None``: by Ray's own call.
        """
        self._asked = asked
        self._announce = announce or _announce
        #: Whether there may be something to be taken back.
        self.is_announced = asked.is_announced
        self._latest: Bundles = []
        #: One announcement at a time, so that the latest is the last.
        self._announcing = threading.Lock()

    def look(self, alive: frozenset[str], placed: Sequence[ReplicaSpec]) -> None:
        """Announces what is missing, where that has changed."""
        bundles = self._asked.bundles(alive, placed)
        if bundles != self._latest:
            self._tell(bundles)

    def withdraw(self) -> None:
        """Asks for nothing any more."""
        if self.is_announced:
            self._tell([]).join(WITHDRAW_TIMEOUT_S)
        self.is_announced = False

    def _tell(self, bundles: Bundles) -> threading.Thread:
        self._latest, self.is_announced = bundles, True
        # On a thread of its own, since a head that is gone keeps those who ask it waiting.
        telling = threading.Thread(target=self._tell_latest, name="ovray-demand", daemon=True)
        telling.start()
        return telling

    def _tell_latest(self) -> None:
        with self._announcing:
            try:
                self._announce(self._latest)
            except (ray.exceptions.RayError, RuntimeError, ConnectionError) as error:
                _log.warning("Ray's autoscaler could not be told what is missing: %s", error)


def _announce(bundles: Bundles) -> None:
    request_resources(bundles=[dict(bundle) for bundle in bundles])
