"""Lays out replicas over what the probe found.

May not enter: starting replicas, connecting to Ray.  What entries mean and which cores: devices/.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ovray.devices import shortage
from ovray.devices.grammar import parse
from ovray.devices.host_look import HostLook
from ovray.devices.inventory import ClusterProbe
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.probe import host_flags, probe_cluster, recorded_sysfs_root
from ovray.devices.records import CoreSharing, Hint, Host, Plan, ReplicaSpec
from ovray.devices.replanning import Present, as_if_free, keep_standing
from ovray.devices.resources import CpusTakenError, TooFewCpusError
from ovray.driver.autoscaling import FIRST_HOST_TIMEOUT_S, Asked, Demand, cpus_of_nodes
from ovray.driver.session import starts_its_own
from ovray.errors import ConfigError

#: Between looks at a cluster whose CPUs others hold; a look takes about as long.
LOOK_AGAIN_S = 1.0

#: How long a plan waits where every core is leased.  The replicas of a job that has just ended hold theirs for a
#: moment longer, and a plan made in that moment would wait for all cores together, those that stay taken, too.
CORES_RETURN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOptions:
    """Says which devices are wanted, and how they are to be used."""

    devices: str = "MULTI"
    hint: Hint = Hint.THROUGHPUT
    #: INFERENCE_PRECISION_HINT for every replica; ``None`` leaves it to each device.
    precision: str | None = None
    sharing: CoreSharing = CoreSharing.EXCLUSIVE
    #: How long to wait for cores that others hold.
    lease_timeout_s: float = 30.0
    #: At most so many replicas, the first of the plan; ``None`` is all.
    max_replicas: int | None = None
    #: A replica that holds work and says nothing for so long is lost; so is a head.
    replica_timeout_s: float = 30.0
    #: Whether Ray's autoscaler is told what is missing.
    autoscale: bool = False

    @classmethod
    def parse(  # noqa: PLR0913 (one parameter an option)
        cls,
        *,
        devices: str,
        hint: str,
        precision: str | None,
        share_cores: bool,
        lease_timeout_s: float,
        max_replicas: int | None = None,
        replica_timeout_s: float = 30.0,
        autoscale: bool = False,
    ) -> "PlacementOptions":
        """Reads what callers type, so that a slip of the pen is told before anything is asked or started.

        Raises:
            ConfigError: the device string is wrong, there is no such hint or precision, or a number is out of
                its range.
        """
        parse(devices)
        PlanOptions(precision=precision)  # refuses one that there is not
        if hint.upper() not in Hint.__members__:
            raise ConfigError(
                f"hint {hint!r} is unknown; legal are {', '.join(Hint.__members__)}; nothing was started"
            )
        if lease_timeout_s < 0:
            raise ConfigError(f"the lease timeout is {lease_timeout_s:g} s; give 0 or more")
        if max_replicas is not None and max_replicas < 1:
            raise ConfigError(f"--max-replicas {max_replicas}: give 1 or more, or leave it out for all")
        if not replica_timeout_s > 0:
            raise ConfigError(f"--replica-timeout {replica_timeout_s:g}: give seconds, more than 0")
        return cls(
            devices=devices,
            hint=Hint[hint.upper()],
            precision=precision,
            sharing=CoreSharing.SHARED if share_cores else CoreSharing.EXCLUSIVE,
            lease_timeout_s=lease_timeout_s,
            max_replicas=max_replicas,
            replica_timeout_s=replica_timeout_s,
            autoscale=autoscale,
        )

    def with_devices(self, devices: str) -> "PlacementOptions":
        """Returns these options for another device string.

        Raises:
            ConfigError: it is wrong.
        """
        parse(devices)
        return replace(self, devices=devices)


def lay_out(options: PlacementOptions, found: ClusterProbe) -> Plan:
    """Lays out replicas; hosts that cannot take part become warnings.

    Raises:
        ConfigError: the device string is wrong, means nothing here, or claims a core twice.
    """
    plan = make_plan(
        parse(options.devices),
        found.hosts,
        PlanOptions(hint=options.hint, sharing=options.sharing, precision=options.precision),
    )
    left_out = tuple(f"host {node.host} was left out: {node.reason}" for node in found.left_out)
    return replace(plan, replicas=plan.replicas[: options.max_replicas], warnings=(*left_out, *plan.warnings))


def lay_out_what_is_free(options: PlacementOptions, found: ClusterProbe) -> Plan:
    """Lays out replicas that Ray has CPUs for now; says in the plan what is missing.

    Raises:
        CpusTakenError: it has none, for now.
        TooFewCpusError: it never will have.
        ConfigError: as ``lay_out``.
    """
    return shortage.lay_out_what_is_free(
        lambda hosts: lay_out(options, replace(found, hosts=tuple(hosts))), found.hosts
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Is a plan whose replicas can be started now, and the hosts that it was made for."""

    plan: Plan
    found: ClusterProbe
    #: How many cores it would have on each node if nobody held any, by Ray's node id.
    wanted_cores: Mapping[str, int]
    #: What Ray's autoscaler is to be told; ``None``: nothing.
    asked: Asked | None = None


def wanted_cores(options: PlacementOptions, hosts: Sequence[Host]) -> Mapping[str, int]:
    """Counts the cores that replicas would have on each node if nobody held any, by Ray's node id."""
    return shortage.cores_on_nodes(replicas_wanted(options, hosts))


def replicas_wanted(options: PlacementOptions, hosts: Sequence[Host]) -> tuple[ReplicaSpec, ...]:
    """Returns the replicas that there would be if nobody held any cores."""
    free = tuple(replace(host, leased_cpus=frozenset()) for host in hosts)
    return shortage.meant_for_work(lay_out(options, ClusterProbe(hosts=free)).replicas, hosts)


@contextmanager
def early_look(address: str | None) -> Iterator[HostLook | None]:
    """Has this host look at itself while the block runs, where a Ray of our own is about to be started on it.

    Args:
        address: as for ``ray_session``, which takes longer than the look.

    Raises:
        ConfigError: the tree that is to stand for ``/sys`` is none.
    """
    if not starts_its_own(address):
        yield None
        return
    with HostLook(host_flags(recorded_sysfs_root(os.environ))) as look:
        yield look


def place(options: PlacementOptions, present: Present | None = None, *, look: HostLook | None = None) -> Placed:
    """Lays out replicas that can be started now, over the cluster that this process is connected to.

    Where there is no CPU for any, waits: for those that others hold, or for hosts that the autoscaler brings.

    Args:
        options: which devices are wanted.
        present: replicas of a pool that is laid out anew: those that are planned as they run keep their ids, and
            what the others hold is as good as free.
        look: at this host, under way; what it sees is used once.

    Raises:
        ConfigError: as ``lay_out``; or Ray has too few CPUs, or none of them became free within the lease timeout,
            or no host came.
    """
    asked, demand = None, None
    if options.autoscale:
        asked = Asked(nodes=cpus_of_nodes(), replicas=options.max_replicas or 1)
        demand = Demand(asked)
    with ExitStack() as undo:
        if demand is not None:
            undo.callback(demand.withdraw)
        plan, found = _when_there_is_room(options, present or Present(), demand, look)
        undo.pop_all()
    if asked is not None and demand is not None:
        cpus = [spec.ray_num_cpus for spec in plan.replicas if spec.ray_num_cpus]
        asked = replace(
            asked,
            replicas=options.max_replicas or len(replicas_wanted(options, found.hosts)),
            cpus_each=min(cpus, default=1),
            is_announced=demand.is_announced,
        )
    if present is not None:
        plan = replace(plan, replicas=keep_standing(present, plan.replicas))
    return Placed(plan=plan, found=found, wanted_cores=wanted_cores(options, found.hosts), asked=asked)


def _when_there_is_room(
    options: PlacementOptions, present: Present, demand: Demand | None, look: HostLook | None
) -> tuple[Plan, ClusterProbe]:
    """Waits until Ray has CPUs for a replica, and a little for cores that nobody has leased."""
    limit_s = options.lease_timeout_s if demand is None else max(options.lease_timeout_s, FIRST_HOST_TIMEOUT_S)
    began_s = time.monotonic()
    end_s = began_s + limit_s
    cores_by_s = began_s + min(CORES_RETURN_S, options.lease_timeout_s)
    while True:
        found = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ), look=look)
        look = None  # it is old by the second time
        found = replace(found, hosts=as_if_free(found.hosts, present.all))
        try:
            plan = lay_out_what_is_free(options, found)
            if shortage.can_start_at_once(plan.replicas, found.hosts) or time.monotonic() >= cores_by_s:
                return plan, found
        except TooFewCpusError as error:
            if demand is None and not isinstance(error, CpusTakenError):
                raise
            if time.monotonic() >= end_s:
                raise type(error)(f"{error}; waited {limit_s:g} s ({_waited_for(options)})") from error
        if demand is not None:
            demand.look(frozenset(cpus_of_nodes()), ())
        time.sleep(LOOK_AGAIN_S)


def _waited_for(options: PlacementOptions) -> str:
    return "--autoscale: no host came that has some" if options.autoscale else "--lease-timeout"
