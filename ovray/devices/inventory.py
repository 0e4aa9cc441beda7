"""What a cluster has, as one record that people can print, filter and keep.

May not enter: ray, openvino, files.  Who fills it: probe.py.  Who places on it: plan.py.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovray.devices.records import Host, NumaNode, OpenVINODevice

if TYPE_CHECKING:
    import pandas as pd

#: OPTIMIZATION_CAPABILITIES names more than precisions: ``WINOGRAD``, ``EXPORT_IMPORT``.
_PRECISION = re.compile(r"(FP|BF|INT|UINT)[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A Ray node that cannot take part, and why."""

    host: str
    node_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterProbe:
    """What the nodes of a cluster said: the record that ``ovray.devices()`` returns."""

    hosts: tuple[Host, ...]
    left_out: tuple[LeftOut, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Returns one row for each thing that a device entry can name: ``CPU.1`` of a host, ``GPU.0``."""
        return [row for host in self.hosts for row in rows_of(host)]

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a DataFrame; the nodes left out are in its ``attrs``."""
        import pandas as pd

        frame = pd.DataFrame(self.rows(), columns=list(ROW_KEYS))
        frame.attrs["left_out"] = [_left_out_to_json(left) for left in self.left_out]
        return frame

    def to_json(self) -> dict[str, Any]:
        """Returns what ``ovray devices --json`` prints."""
        return {
            "hosts": [_host_to_json(host) for host in self.hosts],
            "left_out": [_left_out_to_json(left) for left in self.left_out],
        }


ROW_KEYS = (
    "host",
    "device",
    "full_name",
    "precisions",
    "default_precision",
    "numa_node",
    "cores",
    "cpus",
    "leased_cpus",
    "quota_cpus",
    "memory_bytes",
)


def precisions(device: OpenVINODevice) -> tuple[str, ...]:
    """Returns the precisions that a device computes in natively, as OpenVINO names them there: ``BF16``."""
    return tuple(name for name in device.capabilities if _PRECISION.fullmatch(name))


def rows_of(host: Host) -> list[dict[str, Any]]:
    """Returns one row for each thing that a device entry can name on this host."""
    rows = []
    for device in host.devices:
        if device.name == "CPU":
            rows += [_row(host, device, node) for node in host.topology.nodes if node.cores]
        else:
            rows.append(_row(host, device, None))
    return rows


def _row(host: Host, device: OpenVINODevice, node: NumaNode | None) -> dict[str, Any]:
    cpus = _cpus(node) if node else ()
    return {
        "host": host.name,
        "device": f"CPU.{node.id}" if node else device.name,
        "full_name": device.full_name,
        "precisions": precisions(device),
        "default_precision": device.precision,
        "numa_node": node.id if node else None,
        "cores": len(node.cores) if node else None,
        "cpus": cpus,
        "leased_cpus": tuple(cpu for cpu in cpus if cpu in host.leased_cpus),
        "quota_cpus": host.topology.quota_cpus if node else None,
        "memory_bytes": node.memory_bytes if node else None,
    }


def _cpus(node: NumaNode) -> tuple[int, ...]:
    return tuple(sorted(cpu for core in node.cores for cpu in core.cpus))


def _host_to_json(host: Host) -> dict[str, Any]:
    return {
        "host": host.name,
        "address": host.address,
        "node_id": host.node_id,
        "devices": [_device_to_json(device) for device in host.devices],
        "numa_nodes": [_node_to_json(node) for node in host.topology.nodes],
        "quota_cpus": host.topology.quota_cpus,
        "memory_bytes": host.memory_bytes,
        "leased_cpus": sorted(host.leased_cpus),
        "labels": dict(host.labels),
        "resources": dict(host.resources),
        "available_resources": dict(host.available_resources),
        "versions": dict(host.versions),
    }


def _device_to_json(device: OpenVINODevice) -> dict[str, Any]:
    return {
        "device": device.name,
        "full_name": device.full_name,
        "architecture": device.architecture,
        "precisions": list(precisions(device)),
        "default_precision": device.precision,
        "capabilities": list(device.capabilities),
        "tiles": list(device.tiles),
    }


def _node_to_json(node: NumaNode) -> dict[str, Any]:
    return {
        "numa_node": node.id,
        "cpus": list(_cpus(node)),
        "cores": [
            {"core": core.id, "cpus": list(core.cpus), "package": core.package, "kind": core.kind.value}
            for core in node.cores
        ],
        "memory_bytes": node.memory_bytes,
    }


def _left_out_to_json(left: LeftOut) -> dict[str, str]:
    return {"host": left.host, "node_id": left.node_id, "reason": left.reason}
