"""Reads a host's NUMA nodes and cores from sysfs, cut down to what this process may use.

May not enter: ray, openvino, placement choices.  Whose limits: cgroup.py.  Who places on it: plan.py.

The root is a parameter, so that recorded trees of other machines can stand for ``/sys``.
Sources: Linux Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node, cputopology.rst;
for ``cpu_core`` and ``cpu_atom``, tools/perf/Documentation/intel-hybrid.txt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ovray.devices.cgroup import read_own_limits, read_recorded_limits
from ovray.devices.cpulist import parse_cpu_list
from ovray.devices.records import Core, CoreKind, HostTopology, NumaNode

LIVE_SYSFS = Path("/sys")


def read_topology(sysfs_root: Path = LIVE_SYSFS, affinity: frozenset[int] | None = None) -> HostTopology:
    """Reads the NUMA nodes and cores that may be used.

    Args:
        sysfs_root: ``/sys``, or a recorded tree.  In a recorded tree ``fs/cgroup`` holds the limits.
        affinity: logical CPUs to stay within; ``None`` means this process's own mask for ``/sys``, and no mask for
            a recorded tree, which describes another machine.
    """
    is_live = sysfs_root == LIVE_SYSFS
    limits = read_own_limits() if is_live else read_recorded_limits(sysfs_root)
    if affinity is None and is_live:
        affinity = frozenset(os.sched_getaffinity(0))
    online = _online_cpus(sysfs_root)
    allowed = (
        online & (online if limits.cpus is None else limits.cpus) & (online if affinity is None else affinity)
    )
    return HostTopology(
        nodes=_nodes(sysfs_root, online, allowed),
        online_cpus=tuple(sorted(online)),
        quota_cpus=limits.quota_cpus,
    )


def _nodes(root: Path, online: frozenset[int], allowed: frozenset[int]) -> tuple[NumaNode, ...]:
    cpus_by_node = _cpus_by_node(root, online)
    node_of = {cpu: node for node, cpus in cpus_by_node.items() for cpu in cpus}
    cores = _cores(root, online, allowed, node_of)
    return tuple(
        NumaNode(
            id=node,
            cores=tuple(core for core in cores if core.numa_node == node),
            memory_bytes=_memory_bytes(root, node),
        )
        for node in sorted(cpus_by_node)
    )


def _cores(root: Path, online: frozenset[int], allowed: frozenset[int], node_of: Mapping[int, int]) -> list[Core]:
    siblings = _siblings(root, online)
    efficient = _efficient_cpus(root)
    cores = []
    for id_ in sorted(set(siblings.values())):
        cpus = tuple(sorted(cpu for cpu in allowed if siblings[cpu] == id_))
        if cpus:
            package = _number(_topology_dir(root, cpus[0]) / "physical_package_id", missing=0)
            cores.append(
                Core(
                    id=id_,
                    cpus=cpus,
                    numa_node=node_of[cpus[0]],
                    package=package,
                    cache=_last_level_cache(root, cpus[0], missing=package),
                    kind=CoreKind.EFFICIENT if cpus[0] in efficient else CoreKind.PERFORMANCE,
                )
            )
    return cores


def _online_cpus(root: Path) -> frozenset[int]:
    """Returns the online CPUs, from the list and from each CPU's own switch; some containers hide one of them."""
    present = frozenset(_numbered(_cpu_dir(root), "cpu"))
    listed = parse_cpu_list(_text(_cpu_dir(root) / "online")) or present
    return frozenset(cpu for cpu in listed if _text(_cpu_dir(root) / f"cpu{cpu}" / "online") != "0")


def _cpus_by_node(root: Path, online: frozenset[int]) -> dict[int, frozenset[int]]:
    """Returns each node's online CPUs; a kernel without NUMA, or a container that hides it, has one node: 0."""
    node_dir = root / "devices" / "system" / "node"
    nodes = {
        node: parse_cpu_list(_text(node_dir / f"node{node}" / "cpulist")) & online
        for node in _numbered(node_dir, "node")
    }
    homeless = online.difference(*nodes.values())
    if homeless or not nodes:
        first = min(nodes, default=0)
        nodes[first] = nodes.get(first, frozenset()) | homeless
    return nodes


def _siblings(root: Path, online: Iterable[int]) -> dict[int, int]:
    """Returns each online CPU's core, as the lowest CPU of that core.

    Where the kernel lists no siblings, CPUs of the same package and core number are siblings.
    """
    first_of_core: dict[tuple[int, int], int] = {}
    cores = {}
    for cpu in sorted(online):
        package = _number(_topology_dir(root, cpu) / "physical_package_id", missing=0)
        number = _number(_topology_dir(root, cpu) / "core_id", missing=-1)
        alike = cpu if number < 0 else first_of_core.setdefault((package, number), cpu)
        cores[cpu] = min(_listed_siblings(root, cpu), default=alike)
    return cores


def _listed_siblings(root: Path, cpu: int) -> frozenset[int]:
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is its name before Linux 5.3
        if listed := parse_cpu_list(_text(_topology_dir(root, cpu) / name)):
            return listed
    return frozenset()


def _efficient_cpus(root: Path) -> frozenset[int]:
    """Returns the E-cores of a hybrid CPU: those that the kernel counts with another PMU than its P-cores."""
    if not parse_cpu_list(_text(root / "devices" / "cpu_core" / "cpus")):
        return frozenset()
    kinds = (parse_cpu_list(_text(root / "devices" / pmu / "cpus")) for pmu in ("cpu_atom", "cpu_lowpower"))
    return frozenset().union(*kinds)


def _last_level_cache(root: Path, cpu: int, missing: int) -> int:
    """Returns the lowest CPU that shares the highest cache of this one; ``missing`` where there is no record."""
    cache_dir = _cpu_dir(root) / f"cpu{cpu}" / "cache"
    levels = {
        _number(cache_dir / f"index{index}" / "level", missing=0): parse_cpu_list(
            _text(cache_dir / f"index{index}" / "shared_cpu_list")
        )
        for index in _numbered(cache_dir, "index")
    }
    return min(levels[max(levels)], default=missing) if levels else missing


def _memory_bytes(root: Path, node: int) -> int | None:
    text = _text(root / "devices" / "system" / "node" / f"node{node}" / "meminfo")
    found = re.search(r"MemTotal:\s*([0-9]+) kB", text)
    return int(found[1]) * 1024 if found else None


def _cpu_dir(root: Path) -> Path:
    return root / "devices" / "system" / "cpu"


def _topology_dir(root: Path, cpu: int) -> Path:
    return _cpu_dir(root) / f"cpu{cpu}" / "topology"


def _numbered(directory: Path, prefix: str) -> list[int]:
    """Returns the numbers of the entries that read ``prefix`` and a number, ascending."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = (re.fullmatch(rf"{prefix}([0-9]+)", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def _number(path: Path, missing: int) -> int:
    text = _text(path)
    return int(text) if text else missing


def _text(path: Path) -> str:
    """Returns what a file holds; nothing for one that is not there or, as in some containers, must not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
