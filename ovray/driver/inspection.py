"""Looks at a cluster and returns what was found: ``ovray.devices()`` and ``ovray.doctor()``.

May not enter: replicas, work, printing.  How hosts are asked: devices/probe.py and devices/doctor.py.
"""

import os

from ovray.devices.doctor import diagnose
from ovray.devices.findings import Diagnosis
from ovray.devices.inventory import ClusterProbe
from ovray.devices.probe import DEFAULT_TIMEOUT_S, probe_cluster, recorded_sysfs_root
from ovray.driver.session import ray_session


def devices(address: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ClusterProbe:
    """Return what every host of a cluster has: OpenVINO devices, NUMA nodes and cores, quotas, memory.

    Uses the Ray that this process is connected to, else the one at ``address``, else one that is started on this
    machine and stopped again.

    Args:
        address: ``HOST:PORT`` of a cluster's head; ``None`` finds a running one or starts one.
        timeout_s: how long the hosts may take; who has not answered by then is left out, with the reason.

    Raises:
        ConfigError: no Ray answers at the address.

    Example:
        >>> found = ovray.devices().to_pandas()
        >>> "CPU.0" in set(found["device"])
        True
    """
    sysfs_root = recorded_sysfs_root(os.environ)
    with ray_session(address):
        return probe_cluster(timeout_s=timeout_s, sysfs_root=sysfs_root)


def doctor(address: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Diagnosis:
    """Go through what goes wrong in practice, on every host of a cluster, and say how to mend it.

    Args and errors: as for ``devices``.

    Example:
        >>> diagnosis = ovray.doctor()
        >>> if not diagnosis.is_healthy:
        ...     troubles = [finding.mend for finding in diagnosis.findings if finding.status.value == "fail"]
        >>> "token-auth" in set(diagnosis.to_pandas()["check"])
        True
    """
    sysfs_root = recorded_sysfs_root(os.environ)
    with ray_session(address):
        return diagnose(timeout_s=timeout_s, sysfs_root=sysfs_root)
