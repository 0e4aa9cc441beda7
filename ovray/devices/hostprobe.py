"""Looks at one host, in a process of its own, and prints what it found as one line of JSON.

Run as ``python -m ovray.devices.hostprobe``.  A process of its own because OpenVINO's CPU plugin keeps the mask it
first sees, and a broken GPU driver can take its process down: here both end with this process.

May not enter: ray (its import costs more than all that is done here), placement choices.
Who starts it and collects the answers: probe.py.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ovray.devices.cgroup import read_own_limits, read_recorded_limits
from ovray.devices.hostchecks import check_host
from ovray.devices.leases import CoreLeases
from ovray.devices.mempolicy import prefer_node
from ovray.devices.records import Host, HostTopology, OpenVINODevice
from ovray.devices.telemetry import keep_telemetry_out
from ovray.devices.topology import LIVE_SYSFS, read_topology
from ovray.devices.wire import to_json
from ovray.errors import ConfigError

#: Marks the line of the answer: native libraries may print to standard output too.
ANSWER = "ovray-host "


def main() -> None:
    """Print what this host has, and with ``--checks`` what is wrong with it."""
    parser = argparse.ArgumentParser(prog="python -m ovray.devices.hostprobe", description=main.__doc__)
    parser.add_argument("--sysfs-root", type=Path, default=LIVE_SYSFS, help="a recorded tree instead of /sys")
    parser.add_argument("--checks", action="store_true", help="look for trouble as well")
    arguments = parser.parse_args()
    answer: dict[str, Any] = {"versions": own_versions()}
    try:
        host = look_at_host(arguments.sysfs_root)
    except ImportError as error:
        answer["error"] = f"OpenVINO cannot be loaded there: {error}"
    else:
        answer["host"] = to_json(host)
        if arguments.checks:
            answer["findings"] = to_json(check_host(host, arguments.sysfs_root))
    answer["time_s"] = time.time()
    answer["auth_mode"] = os.environ.get("RAY_AUTH_MODE", "disabled")
    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)
    # A GPU or NPU plugin may hang or crash while it unloads; everything is said by now.
    sys.stderr.flush()
    os._exit(0)


def own_versions() -> dict[str, str]:
    """Return the versions that have to be equal on all hosts, as installed here; ``"none"`` where missing."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in ("openvino", "ray", "ovray"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    return versions


def look_at_host(sysfs_root: Path) -> Host:
    """Return what this process may use of this host; with a recorded tree, its cores instead of the real ones.

    Raises:
        ImportError: OpenVINO cannot be loaded.
    """
    topology = read_topology(sysfs_root)
    is_live = sysfs_root == LIVE_SYSFS
    return Host(
        name=socket.gethostname(),
        topology=topology,
        devices=_openvino_devices(),
        machine_id=_boot_id(),
        memory_bytes=_memory_bytes(sysfs_root, topology),
        can_bind_memory=_can_bind_memory(topology) if is_live else True,
        # Nobody holds leases on a machine that is only a recording.
        leased_cpus=_leased_cpus() if is_live else frozenset(),
        versions=own_versions(),
    )


def _openvino_devices() -> tuple[OpenVINODevice, ...]:
    keep_telemetry_out()
    import openvino

    core = openvino.Core()
    names: list[str] = core.available_devices
    tiles = {name for name in names if name.count(".") == 2}
    return tuple(
        _describe(core, name, tuple(sorted(tile for tile in tiles if tile.startswith(f"{name}."))))
        for name in names
        if name not in tiles
    )


def _describe(core: Any, name: str, tiles: tuple[str, ...]) -> OpenVINODevice:
    precision = _property(core, name, "INFERENCE_PRECISION_HINT")
    kind = _property(core, name, "DEVICE_TYPE")
    return OpenVINODevice(
        name=name,
        full_name=str(_property(core, name, "FULL_DEVICE_NAME") or ""),
        capabilities=tuple(map(str, _property(core, name, "OPTIMIZATION_CAPABILITIES") or ())),
        architecture=str(_property(core, name, "DEVICE_ARCHITECTURE") or ""),
        precision=precision.get_type_name() if precision is not None else "",
        type="" if kind is None else kind.name.lower(),
        tiles=tiles,
    )


def _property(core: Any, device: str, name: str) -> Any:
    """Return a property of a device, ``None`` where its plugin does not know it or fails to answer."""
    try:
        return core.get_property(device, name)
    except RuntimeError:
        return None


def _boot_id() -> str:
    """Return what is equal for all containers of one machine and for nothing else; sandboxes may hide it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _memory_bytes(sysfs_root: Path, topology: HostTopology) -> int | None:
    """Return what the machine has, or the container may use of it."""
    if sysfs_root == LIVE_SYSFS:
        limit = read_own_limits().memory_bytes
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        limit = read_recorded_limits(sysfs_root).memory_bytes
        total = sum(node.memory_bytes or 0 for node in topology.nodes)
    return min((size for size in (limit, total) if size), default=None)


def _can_bind_memory(topology: HostTopology) -> bool:
    """Try it on this short-lived process."""
    node_ids = [node.id for node in topology.nodes if node.memory_bytes]
    return bool(node_ids) and prefer_node(node_ids[0]) == 0


def _leased_cpus() -> frozenset[int]:
    try:
        return frozenset(CoreLeases().held())
    except ConfigError:
        return frozenset()  # no directory for leases; a replica that needs one says so, and `ovray doctor`


if __name__ == "__main__":
    main()
