"""Asks the cluster what it has and lays out the replicas.

May not enter: starting anything.  What entries mean and which cores: devices/.
"""

import os
from dataclasses import dataclass, replace

from ovray.devices.grammar import parse
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.probe import probe_cluster, recorded_sysfs_root
from ovray.devices.records import CoreSharing, Hint, Plan
from ovray.devices.resources import check_resources
from ovray.errors import ConfigError


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

    @classmethod
    def parse(
        cls, *, devices: str, hint: str, precision: str | None, share_cores: bool, lease_timeout_s: float
    ) -> "PlacementOptions":
        """Reads what callers type.

        Raises:
            ConfigError: there is no such hint, or the time is below zero.
        """
        if hint.upper() not in Hint.__members__:
            raise ConfigError(f"there is no hint {hint!r}; OpenVINO has {', '.join(Hint.__members__)}")
        if lease_timeout_s < 0:
            raise ConfigError(f"the lease timeout is {lease_timeout_s:g} s; give 0 or more")
        return cls(
            devices=devices,
            hint=Hint[hint.upper()],
            precision=precision,
            sharing=CoreSharing.SHARED if share_cores else CoreSharing.EXCLUSIVE,
            lease_timeout_s=lease_timeout_s,
        )


def place(options: PlacementOptions) -> Plan:
    """Lays out replicas over the cluster that this process is connected to.

    Raises:
        ConfigError: the device string is wrong, means nothing here, or Ray has too few CPUs free.
    """
    wanted = parse(options.devices)
    probe = probe_cluster(sysfs_root=recorded_sysfs_root(os.environ))
    plan = make_plan(
        wanted,
        probe.hosts,
        PlanOptions(hint=options.hint, sharing=options.sharing, precision=options.precision),
    )
    check_resources(plan, probe.hosts)
    left_out = tuple(f"host {node.host} was left out: {node.reason}" for node in probe.left_out)
    return replace(plan, warnings=(*left_out, *plan.warnings))
