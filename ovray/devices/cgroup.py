"""Reads what control groups, version 1 or 2, leave a process of its host's CPUs: which of them, and how much time.

May not enter: topology, placement.  Who cuts the topology down to it: topology.py.

Both versions are read alike: a directory is asked for the files of either, so a hybrid mount is no special case.
Sources: Linux Documentation/admin-guide/cgroup-v2.rst (cpu.max, cpuset.cpus.effective), cgroup-v1/cpusets.rst,
scheduler/sched-bwc.rst (cpu.cfs_quota_us), and proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ovray.devices.cpulist import parse_cpu_list


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What the control groups grant; ``None`` where they set no limit."""

    cpus: frozenset[int] | None = None
    #: CPUs' worth of time, as it is written: 2.5.
    quota_cpus: float | None = None
    memory_bytes: int | None = None


#: Version 1 has no word for "no limit": it writes the largest number that it can count in pages.
_NO_MEMORY_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class _Mount:
    """One mounted hierarchy: ``root`` is the part of it that is seen at ``point``."""

    point: Path
    root: PurePosixPath
    #: Names of the controllers; empty for version 2, which has all in one hierarchy.
    controllers: frozenset[str]


def read_own_limits(proc_root: Path = Path("/proc")) -> CgroupLimits:
    """Reads the limits of this process: those of its own groups and of every group above them that can be seen."""
    mounts = list(_mounts(proc_root / "self" / "mountinfo"))
    groups = list(_groups(proc_root / "self" / "cgroup"))
    return _limits(
        cpu=[directory for found in _visible(mounts, groups, "cpu") for directory in found],
        cpuset=[directory for found in _visible(mounts, groups, "cpuset") for directory in found],
        memory=[directory for found in _visible(mounts, groups, "memory") for directory in found],
    )


def read_recorded_limits(sysfs_root: Path) -> CgroupLimits:
    """Reads the limits of a recorded tree, in which ``fs/cgroup`` is the group of the process itself."""
    group = sysfs_root / "fs" / "cgroup"
    return _limits(cpu=[group, group / "cpu"], cpuset=[group, group / "cpuset"], memory=[group, group / "memory"])


def _limits(cpu: Iterable[Path], cpuset: Iterable[Path], memory: Iterable[Path]) -> CgroupLimits:
    quotas = [quota for directory in cpu if (quota := _quota_cpus(directory)) is not None]
    sizes = [size for directory in memory if (size := _memory_bytes(directory)) is not None]
    sets = [cpus for directory in cpuset if (cpus := _cpuset(directory))]
    return CgroupLimits(
        cpus=frozenset.intersection(*sets) if sets else None,
        quota_cpus=min(quotas, default=None),
        memory_bytes=min(sizes, default=None),
    )


def _quota_cpus(directory: Path) -> float | None:
    limit, _, period = _text(directory / "cpu.max").partition(" ")
    if not limit:
        limit = _text(directory / "cpu.cfs_quota_us")
        period = _text(directory / "cpu.cfs_period_us")
    if limit in ("", "max", "-1"):
        return None
    return int(limit) / int(period or 100_000)  # the kernel's default period


def _cpuset(directory: Path) -> frozenset[int]:
    """Returns the CPUs that may be used: version 2's file, version 1's, or what version 1 was asked for."""
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        if cpus := parse_cpu_list(_text(directory / name)):
            return cpus
    return frozenset()


def _memory_bytes(directory: Path) -> int | None:
    limit = _text(directory / "memory.max") or _text(directory / "memory.limit_in_bytes")
    if limit in ("", "max") or int(limit) >= _NO_MEMORY_LIMIT:
        return None
    return int(limit)


def _visible(
    mounts: list[_Mount], groups: list[tuple[str, PurePosixPath]], controller: str
) -> Iterator[list[Path]]:
    """Returns, for each hierarchy that may hold the controller, the process's group there and all groups above."""
    for controllers, path in groups:
        for mount in mounts:
            is_v2 = not controllers and not mount.controllers
            if is_v2 or (controller in controllers.split(",") and controller in mount.controllers):
                yield _upwards(mount, path)


def _upwards(mount: _Mount, path: PurePosixPath) -> list[Path]:
    """Returns the directories from a group up to the mount point.

    Under a container's own cgroup namespace the path may lie outside of what is mounted (``/../..``); then the
    mount point is the nearest group that can be seen.
    """
    if ".." in path.parts or not path.is_relative_to(mount.root):
        return [mount.point]
    below = path.relative_to(mount.root)
    return [mount.point / part for part in (below, *below.parents)]


def _groups(cgroup_file: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Reads ``4:cpu,cpuacct:/path`` (version 1) and ``0::/path`` (version 2)."""
    for line in _text(cgroup_file).splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers, PurePosixPath(path)


def _mounts(mountinfo_file: Path) -> Iterator[_Mount]:
    for line in _text(mountinfo_file).splitlines():
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ")
        if kind not in ("cgroup", "cgroup2"):
            continue
        fields = before.split(" ")
        controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset[str]()
        yield _Mount(Path(fields[4]), PurePosixPath(fields[3]), controllers)


def _text(path: Path) -> str:
    """Returns what a file holds; nothing for one that is not there or must not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
