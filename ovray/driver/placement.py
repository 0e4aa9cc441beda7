"""Lays out replicas over what the probe found.

May not enter: starting replicas, connecting to Ray.  What entries mean and which cores: devices/.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ovray.devices.grammar import parse
from ovray.devices.host_look import HostLook
from ovray.devices.inventory import ClusterProbe
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.probe import host_flags, probe_cluster, recorded_sysfs_root
from ovray.devices.records import CoreSharing, Hint, Plan
from ovray.devices.replanning import Present, as_if_free, keep_standing
from ovray.devices.resources import CpusTakenError, check_resources
from ovray.driver.session import starts_its_own
from ovray.errors import ConfigError

#: Between looks at a cluster whose CPUs others hold; a look takes about as long.
LOOK_AGAIN_S = 1.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Is a plan whose replicas can be started now, and the hosts that it was made for."""

    plan: Plan
    found: ClusterProbe


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

    Args:
        options: which devices are wanted.
        present: replicas of a pool that is laid out anew: those that are planned as they run keep their ids, and
            what the others hold is as good as free.
        look: at this host, under way; what it sees is used once.

    Raises:
        ConfigError: as ``lay_out``; or Ray has too few CPUs, or none of them became free within the lease timeout.
    """
    end_s = time.monotonic() + options.lease_timeout_s
    while True:
        found = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ), look=look)
        look = None  # it is old by the second time
        if present is not None:
            found = replace(found, hosts=as_if_free(found.hosts, present.all))
        plan = lay_out(options, found)
        try:
            check_resources(plan, found.hosts)
        except CpusTakenError as error:
            if time.monotonic() >= end_s:
                raise CpusTakenError(f"{error}; waited {options.lease_timeout_s:g} s (--lease-timeout)") from error
            time.sleep(LOOK_AGAIN_S)
        else:
            if present is not None:
                plan = replace(plan, replicas=keep_standing(present, plan.replicas))
            return Placed(plan=plan, found=found)
