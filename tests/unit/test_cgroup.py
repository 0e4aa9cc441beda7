from pathlib import Path

import pytest

from ovray.devices.cgroup import CgroupLimits, read_own_limits, read_recorded_limits


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def a_v2_process(root: Path, group: str, mounted: str = "/") -> Path:
    """Writes /proc for a process in a version 2 group; the part ``mounted`` of its tree is seen at root/cg."""
    write(root / "proc/self/cgroup", f"0::{group}")
    write(
        root / "proc/self/mountinfo", f"30 23 0:26 {mounted} {root}/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
    )
    return root / "proc"


def a_v1_process(root: Path, group: str, mounted: str = "/") -> Path:
    """Writes /proc for a process in version 1 groups of the same name."""
    write(root / "proc/self/cgroup", f"4:cpu,cpuacct:{group}\n3:cpuset:{group}\n1:name=systemd:/\n0::/")
    write(
        root / "proc/self/mountinfo",
        f"31 23 0:27 {mounted} {root}/cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        f"32 23 0:28 {mounted} {root}/cg/cpuset rw - cgroup cgroup rw,cpuset\n"
        f"33 23 0:29 / {root}/cg/unified rw - cgroup2 cgroup2 rw\n"
        f"34 23 0:30 / {root}/elsewhere rw shared:5 - tmpfs tmpfs rw",
    )
    return root / "proc"


def test_a_version_2_group_s_own_limits_are_read(tmp_path: Path) -> None:
    proc = a_v2_process(tmp_path, "/pod/worker")
    write(tmp_path / "cg/pod/worker/cpu.max", "250000 100000")
    write(tmp_path / "cg/pod/worker/cpuset.cpus.effective", "0-3,8")

    assert read_own_limits(proc) == CgroupLimits(cpus=frozenset({0, 1, 2, 3, 8}), quota_cpus=2.5)


def test_the_smallest_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    proc = a_v2_process(tmp_path, "/slice/pod/worker")
    write(tmp_path / "cg/slice/cpu.max", "800000 100000")
    write(tmp_path / "cg/slice/pod/cpu.max", "300000 100000")
    write(tmp_path / "cg/slice/pod/worker/cpu.max", "max 100000")

    assert read_own_limits(proc).quota_cpus == 3.0


@pytest.mark.parametrize(
    ("group", "mounted"),
    [
        pytest.param("/", "/", id="its own cgroup namespace"),
        pytest.param("/docker/abc", "/docker/abc", id="the host's namespace, only its own part mounted"),
        pytest.param("/../other", "/", id="a group outside of the namespace"),
        pytest.param("/docker/abc", "/docker/xyz", id="a group outside of what is mounted"),
    ],
)
def test_in_a_container_the_mount_point_is_the_group(tmp_path: Path, group: str, mounted: str) -> None:
    proc = a_v2_process(tmp_path, group, mounted)
    write(tmp_path / "cg/cpu.max", "150000 100000")

    assert read_own_limits(proc).quota_cpus == 1.5


def test_version_1_groups_are_read_controller_by_controller(tmp_path: Path) -> None:
    proc = a_v1_process(tmp_path, "/job")
    write(tmp_path / "cg/cpu,cpuacct/job/cpu.cfs_quota_us", "400000")
    write(tmp_path / "cg/cpu,cpuacct/job/cpu.cfs_period_us", "200000")
    write(tmp_path / "cg/cpuset/job/cpuset.effective_cpus", "2-3")
    write(tmp_path / "cg/cpuset/cpuset.effective_cpus", "0-7")

    assert read_own_limits(proc) == CgroupLimits(cpus=frozenset({2, 3}), quota_cpus=2.0)


def test_a_version_1_quota_of_minus_one_is_no_limit(tmp_path: Path) -> None:
    proc = a_v1_process(tmp_path, "/")
    write(tmp_path / "cg/cpu,cpuacct/cpu.cfs_quota_us", "-1")

    assert read_own_limits(proc) == CgroupLimits()


def test_a_machine_without_cgroups_has_no_limits(tmp_path: Path) -> None:
    assert read_own_limits(tmp_path) == CgroupLimits()


def test_a_recorded_tree_holds_its_limits_at_the_top(tmp_path: Path) -> None:
    write(tmp_path / "fs/cgroup/cpu.max", "250000 100000")
    write(tmp_path / "fs/cgroup/cpuset.cpus.effective", "4-7")

    assert read_recorded_limits(tmp_path) == CgroupLimits(cpus=frozenset({4, 5, 6, 7}), quota_cpus=2.5)


@pytest.mark.parametrize(
    ("written", "memory_bytes"),
    [("1073741824", 2**30), ("max", None)],
)
def test_a_version_2_memory_limit_is_read(tmp_path: Path, written: str, memory_bytes: int | None) -> None:
    proc = a_v2_process(tmp_path, "/pod")
    write(tmp_path / "cg/pod/memory.max", written)

    assert read_own_limits(proc).memory_bytes == memory_bytes


@pytest.mark.parametrize(
    ("written", "memory_bytes"),
    [("1073741824", 2**30), ("9223372036854771712", None)],
)
def test_a_version_1_memory_limit_is_read(tmp_path: Path, written: str, memory_bytes: int | None) -> None:
    write(tmp_path / "fs/cgroup/memory/memory.limit_in_bytes", written)

    assert read_recorded_limits(tmp_path).memory_bytes == memory_bytes


def test_the_smallest_memory_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    proc = a_v2_process(tmp_path, "/slice/pod")
    write(tmp_path / "cg/slice/memory.max", "1000")
    write(tmp_path / "cg/slice/pod/memory.max", "2000")

    assert read_own_limits(proc).memory_bytes == 1000
