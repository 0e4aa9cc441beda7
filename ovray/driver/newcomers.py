"""Looks at hosts that join the cluster while replicas run, and says what the device string means on them.

May not enter: starting replicas (lifecycle.py), what entries mean (devices/).  A look takes a second or more, so
it is taken on a thread of its own.
"""

import logging
import os
import threading
from collections.abc import Callable

from ovray.devices.inventory import ClusterProbe
from ovray.devices.probe import probe_cluster, recorded_sysfs_root
from ovray.devices.records import Plan, ReplicaSpec
from ovray.devices.resources import check_resources
from ovray.driver.lifecycle import Upkeep
from ovray.driver.messages import ClusterSeen, HostsJoined, ReplicaStart
from ovray.driver.placement import PlacementOptions, lay_out
from ovray.driver.transport import Outlet
from ovray.errors import ConfigError

_log = logging.getLogger(__name__)


class Newcomers:
    """Watches for nodes that were not there when the replicas were laid out."""

    def __init__(
        self,
        options: PlacementOptions,
        found: ClusterProbe,
        start_of: Callable[[ReplicaSpec], ReplicaStart],
        tell: Callable[[HostsJoined], None],
    ) -> None:
        """Stores.

        Args:
            options: which devices are wanted.
            found: the hosts on which the first replicas were laid out.
            start_of: adds to a replica's place what it is to compile with.
            tell: is told what to start, on a thread of this object's.
        """
        self._options = options
        self._start_of = start_of
        self._tell = tell
        self._hosts = {host.node_id: host for host in found.hosts}
        #: Asked once; a node that could not answer then is left out for good, as at the start.
        self._asked = {*self._hosts, *(left_out.node_id for left_out in found.left_out)}
        self._looking: threading.Thread | None = None

    def consider(self, seen: ClusterSeen) -> None:
        """Looks at nodes that are new, if there are any; returns at once."""
        new = seen.alive - seen.draining - self._asked
        if not new or (self._looking is not None and self._looking.is_alive()):
            return
        self._asked |= new
        self._looking = threading.Thread(
            target=self._look, args=(new, seen.alive), name="ovray-newcomers", daemon=True
        )
        self._looking.start()

    def _look(self, new: frozenset[str], alive: frozenset[str]) -> None:
        found = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ), only=new)
        for left_out in found.left_out:
            _log.warning("host %s joined and was left out: %s", left_out.host, left_out.reason)
        self._hosts |= {host.node_id: host for host in found.hosts}
        hosts = tuple(host for host in self._hosts.values() if host.node_id in alive)
        try:
            plan = lay_out(self._options, ClusterProbe(hosts=hosts))
            replicas = tuple(spec for spec in plan.replicas if spec.node_id in new)
            check_resources(Plan(replicas=replicas), found.hosts)
        except ConfigError as error:
            _log.warning("replicas are not started on hosts that joined: %s", error)
            return
        starts = tuple(map(self._start_of, replicas))
        self._tell(HostsJoined(starts=starts, replicas_wanted=len(plan.replicas), seen_by=self))


def upkeep_of(
    options: PlacementOptions, found: ClusterProbe, start_of: Callable[[ReplicaSpec], ReplicaStart], inbox: Outlet
) -> Upkeep:
    """Says how replicas are looked after that were laid out on these hosts: hosts that join get some, too."""
    return Upkeep(
        silence_timeout_s=options.replica_timeout_s,
        head_timeout_s=options.replica_timeout_s,
        newcomers=Newcomers(options, found, start_of, inbox.put),
    )
