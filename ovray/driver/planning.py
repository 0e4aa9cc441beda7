"""Shows where replicas would run: ``ovray.plan()`` and ``ovray plan``.

May not enter: starting replicas, printing.  What entries mean and which cores: devices/.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ovray.devices.grammar import parse
from ovray.devices.inventory import ClusterProbe
from ovray.devices.plan import PlanOptions, make_plan
from ovray.devices.probe import probe_cluster, probe_local_host, recorded_sysfs_root
from ovray.devices.records import CoreSharing, Hint, Plan
from ovray.devices.resources import check_resources
from ovray.driver.session import has_ray, ray_session
from ovray.errors import ConfigError


def plan(
    *,
    devices: str = "MULTI",
    hint: str = "THROUGHPUT",
    precision: str | None = None,
    share_cores: bool = False,
    address: str | None = None,
) -> Plan:
    """Returns where every replica would run.  Nothing is compiled, leased or claimed.

    Looks at the Ray that this process is connected to, else the one at ``address``, else a running one.  Where
    there is none, it looks at this machine and starts no Ray.  With ``OVRAY_SYSFS_ROOT=DIR`` in the environment,
    the machine recorded in DIR stands for every host, and the plan is not held against what Ray has.

    Args:
        devices: device string; ``MULTI`` is every device of the cluster.
        hint: OpenVINO's performance hint, ``THROUGHPUT``, ``LATENCY`` or ``CUMULATIVE_THROUGHPUT``.
        precision: ``f32``, ``f16`` or ``bf16`` for every replica; ``None`` leaves it to each device.
        share_cores: lets replicas run on cores that others hold.
        address: ``HOST:PORT`` of a Ray head; ``local`` means this machine alone.

    Raises:
        ConfigError: the device string is wrong, means nothing here, claims a core twice, or Ray has too few CPUs.

    Example:
        >>> ovray.plan(devices="CPU*2", hint="LATENCY").to_pandas()  # doctest: +SKIP
    """
    options = PlanOptions(
        hint=parse_hint(hint),
        sharing=CoreSharing.SHARED if share_cores else CoreSharing.EXCLUSIVE,
        precision=precision,
    )
    wanted = parse(devices)
    sysfs_root = recorded_sysfs_root(os.environ)
    found = _look_at_hosts(address, sysfs_root)
    laid_out = make_plan(wanted, found.hosts, options)
    if sysfs_root is None and any(host.node_id for host in found.hosts):
        check_resources(laid_out, found.hosts)
    left_out = tuple(f"host {node.host} was left out: {node.reason}" for node in found.left_out)
    return replace(laid_out, warnings=(*left_out, *laid_out.warnings))


def parse_hint(text: str) -> Hint:
    """Returns the hint that a user named, in capitals or not."""
    try:
        return Hint[text.upper()]
    except KeyError:
        raise ConfigError(
            f"hint '{text}' is unknown; legal are {', '.join(Hint.__members__)}; nothing was started"
        ) from None


def _look_at_hosts(address: str | None, sysfs_root: Path | None) -> ClusterProbe:
    if not has_ray(address):
        return ClusterProbe(hosts=(probe_local_host(sysfs_root),))
    with ray_session(address):
        return probe_cluster(sysfs_root=sysfs_root)
