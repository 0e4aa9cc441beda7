"""Looks for room while replicas run: on hosts that join, and on cores that others give back; says what the device
string means there.

May not enter: starting replicas (lifecycle.py), what entries mean (devices/).  A look takes a second or more, so
it is taken on a thread of its own.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import ray
from ray._private.state import available_resources_per_node

from ovray.devices.inventory import ClusterProbe
from ovray.devices.probe import probe_cluster, recorded_sysfs_root
from ovray.devices.records import ReplicaSpec
from ovray.devices.replanning import Present, held_by, keep_standing
from ovray.devices.shortage import cores_on_nodes, with_free_cores
from ovray.driver.autoscaling import Demand
from ovray.driver.lifecycle import Upkeep
from ovray.driver.messages import ClusterSeen, HostsJoined, ReplicaStart, RoomFound
from ovray.driver.placement import Placed, PlacementOptions, lay_out, lay_out_what_is_free, wanted_cores
from ovray.driver.transport import Outlet
from ovray.errors import ConfigError

_log = logging.getLogger(__name__)

#: How often is asked whether Ray has CPUs again where cores are missing.  Where it has, the host is looked at,
#: which costs it a second of one core; where nothing comes of that, the next look waits twice as long.
LOOK_FOR_ROOM_S = 5.0
LOOK_FOR_ROOM_MAX_S = 60.0


class Newcomers:
    """Watches for nodes that were not there when the replicas were laid out, and for cores that were not free."""

    def __init__(
        self,
        options: PlacementOptions,
        placed: Placed,
        start_of: Callable[[ReplicaSpec], ReplicaStart],
        tell: Callable[[HostsJoined | RoomFound], None],
    ) -> None:
        """Stores.

        Args:
            options: which devices are wanted.
            placed: the first replicas, and the hosts on which they were laid out.
            start_of: adds to a replica's place what it is to compile with.
            tell: is told what to start, on a thread of this object's.
        """
        #: The bound on replicas holds for those that there are, not for those of a plan.
        self._options = replace(options, max_replicas=None)
        self._max_replicas = options.max_replicas or sys.maxsize
        self._start_of = start_of
        self._tell = tell
        self._hosts = {host.node_id: host for host in placed.found.hosts}
        self._wanted_cores: Mapping[str, int] = placed.wanted_cores
        #: Asked once; a node that could not answer then is left out for good, as at the start.
        self._asked = {*self._hosts, *(left_out.node_id for left_out in placed.found.left_out)}
        self._looking: threading.Thread | None = None
        self._pause_s = LOOK_FOR_ROOM_S
        self._look_at_s = time.monotonic() + LOOK_FOR_ROOM_S

    def consider(self, seen: ClusterSeen, placed: Sequence[ReplicaSpec]) -> None:
        """Looks where there may be room now, if anywhere; returns at once.

        Args:
            seen: the nodes that there are.
            placed: the replicas that have their place, or will have it again.
        """
        if self._looking is not None and self._looking.is_alive():
            return
        usable = seen.alive - seen.draining
        new = usable - self._asked
        if new:
            self._asked |= new
            self._look(self._look_at_new, new, seen.alive)
        elif time.monotonic() >= self._look_at_s and (short := self._short_nodes(placed) & usable):
            self._look_at_s = time.monotonic() + self._pause_s
            self._look(self._look_for_room, frozenset(short), seen.alive, placed)

    def _look(self, look: Callable[..., None], *what: object) -> None:
        self._looking = threading.Thread(target=look, args=what, name="ovray-newcomers", daemon=True)
        self._looking.start()

    def _look_at_new(self, new: frozenset[str], alive: frozenset[str]) -> None:
        found = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ), only=new)
        for left_out in found.left_out:
            _log.warning("host %s joined and was left out: %s", left_out.host, left_out.reason)
        self._hosts |= {host.node_id: host for host in found.hosts}
        hosts = tuple(host for host in self._hosts.values() if host.node_id in alive)
        try:
            plan = lay_out(self._options, ClusterProbe(hosts=hosts))
            self._wanted_cores = wanted_cores(self._options, hosts)
            fitting = lay_out_what_is_free(self._options, ClusterProbe(hosts=hosts))
        except ConfigError as error:
            _log.warning("replicas are not started on hosts that joined: %s", error)
            return
        starts = tuple(self._start_of(spec) for spec in fitting.replicas if spec.node_id in new)
        wanted = min(len(plan.replicas), self._max_replicas)
        self._tell(HostsJoined(starts=starts, replicas_wanted=wanted, seen_by=self))

    # --- cores that others give back ------------------------------------------------------------------------

    def _short_nodes(self, placed: Sequence[ReplicaSpec]) -> set[str]:
        if len(placed) >= self._max_replicas:
            return set()
        there = cores_on_nodes(placed)
        return {node for node, cores in self._wanted_cores.items() if there.get(node, 0) < cores}

    def _look_for_room(self, short: frozenset[str], alive: frozenset[str], placed: Sequence[ReplicaSpec]) -> None:
        try:
            books: Mapping[str, Mapping[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
        except ray.exceptions.RayError:
            return  # a head that does not answer is noticed by others
        roomy = {node for node in short if books.get(node, {}).get("CPU", 0.0) >= 1.0}
        if not roomy:
            return
        found = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ), only=roomy)
        fresh = {host.node_id: host for host in found.hosts}
        hosts = tuple({**self._hosts, **fresh}[node] for node in self._hosts if node in alive)
        starts = self._starts_on(fresh.keys(), ClusterProbe(hosts=hosts), placed)
        self._pause_s = LOOK_FOR_ROOM_S if starts else min(2 * self._pause_s, LOOK_FOR_ROOM_MAX_S)
        if starts:
            self._tell(RoomFound(starts=starts, replicas_max=self._max_replicas, seen_by=self))

    def _starts_on(
        self, nodes: Iterable[str], found: ClusterProbe, placed: Sequence[ReplicaSpec]
    ) -> tuple[ReplicaStart, ...]:
        """Says what can be started on cores of some nodes that nobody has, not even a replica that is away."""
        try:
            held = held_by(found.hosts, placed)
            plan = lay_out_what_is_free(self._options, replace(found, hosts=held))
        except ConfigError:
            return ()  # somebody was faster
        free = with_free_cores([spec for spec in plan.replicas if spec.node_id in set(nodes)], held)
        return tuple(map(self._start_of, keep_standing(Present(leaving=tuple(placed)), free)))


def upkeep_of(
    options: PlacementOptions, placed: Placed, start_of: Callable[[ReplicaSpec], ReplicaStart], inbox: Outlet
) -> Upkeep:
    """Says how replicas are looked after that were laid out so: hosts that join get some, too."""
    return Upkeep(
        silence_timeout_s=options.replica_timeout_s,
        head_timeout_s=options.replica_timeout_s,
        newcomers=Newcomers(options, placed, start_of, inbox.put),
        demand=None if placed.asked is None else Demand(placed.asked),
    )
