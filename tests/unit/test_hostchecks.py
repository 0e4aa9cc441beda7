import os
import resource
from pathlib import Path

import pytest

from ovray.devices import hostchecks
from ovray.devices.findings import Diagnosis, Finding, Status
from ovray.devices.neighbours import Neighbour
from ovray.devices.records import Core, HostTopology, NumaNode


def a_topology(*cores: tuple[int, ...], quota_cpus: float | None = None) -> HostTopology:
    found = tuple(Core(id=cpus[0], cpus=cpus, numa_node=0, package=0, cache=0) for cpus in cores)
    online = tuple(sorted(cpu for cpus in cores for cpu in cpus))
    return HostTopology(nodes=(NumaNode(id=0, cores=found),), online_cpus=online, quota_cpus=quota_cpus)


def a_pci_device(sysfs_root: Path, slot: str, vendor: str, pci_class: str) -> None:
    folder = sysfs_root / "bus/pci/devices" / slot
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(vendor + "\n")
    (folder / "class").write_text(pci_class + "\n")


@pytest.mark.parametrize("quota_cpus", [None, 4.0, 64.0])
def test_a_quota_that_covers_the_mask_is_fine(quota_cpus: float | None) -> None:
    topology = a_topology((0,), (1,), (2,), (3,), quota_cpus=quota_cpus)

    assert hostchecks.check_quota(topology).status is Status.OK


def test_a_quota_below_the_mask_is_shown_with_both_numbers_and_a_remedy() -> None:
    finding = hostchecks.check_quota(a_topology((0,), (1,), (2,), (3,), quota_cpus=2.5))

    assert finding.status is Status.WARN
    assert "quota is 2.5 CPUs, but its mask shows 4: ovray uses 2" in finding.what
    assert "--cpuset-cpus" in finding.mend


def test_smt_is_information_and_no_trouble() -> None:
    finding = hostchecks.check_smt(a_topology((0, 2), (1, 3)))

    assert finding.status is Status.INFO
    assert finding.what.startswith("2 of 2 cores run two threads")


def test_a_host_without_smt_is_fine() -> None:
    assert hostchecks.check_smt(a_topology((0,), (1,))).status is Status.OK


@pytest.mark.parametrize(("kind", "pci_class"), [("GPU", "0x030000"), ("GPU", "0x038000"), ("NPU", "0x120000")])
def test_hardware_without_a_device_node_needs_a_kernel_driver(tmp_path: Path, kind: str, pci_class: str) -> None:
    a_pci_device(tmp_path, "0000:03:00.0", "0x8086", pci_class)

    finding = hostchecks.check_accelerator(kind, ["CPU"], tmp_path, tmp_path / "dev")

    assert (finding.check, finding.status) == (f"{kind.lower()}-driver", Status.WARN)
    assert "PCI 0000:03:00.0" in finding.what
    assert "load the kernel driver" in finding.mend
    assert "--device" in finding.mend


def test_a_device_node_that_opens_leaves_the_user_space_driver(tmp_path: Path) -> None:
    a_pci_device(tmp_path, "0000:03:00.0", "0x8086", "0x030000")
    node = tmp_path / "dev/dri/renderD128"
    node.parent.mkdir(parents=True)
    node.touch()

    finding = hostchecks.check_accelerator("GPU", ["CPU"], tmp_path, tmp_path / "dev")

    assert finding.mend == "install intel-opencl-icd"


def test_a_device_node_that_does_not_open_needs_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_pci_device(tmp_path, "0000:03:00.0", "0x8086", "0x030000")
    node = tmp_path / "dev/dri/renderD128"
    node.parent.mkdir(parents=True)
    node.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open everything

    finding = hostchecks.check_accelerator("GPU", ["CPU"], tmp_path, tmp_path / "dev")

    assert "may not open" in finding.what
    assert "group `render`" in finding.mend


def test_hardware_that_openvino_sees_is_fine(tmp_path: Path) -> None:
    a_pci_device(tmp_path, "0000:03:00.0", "0x8086", "0x030000")

    assert hostchecks.check_accelerator("GPU", ["CPU", "GPU.0"], tmp_path, tmp_path).status is Status.OK


@pytest.mark.parametrize(("vendor", "pci_class"), [("0x10de", "0x030000"), ("0x8086", "0x020000")])
def test_other_hardware_needs_no_driver_of_intels(tmp_path: Path, vendor: str, pci_class: str) -> None:
    a_pci_device(tmp_path, "0000:03:00.0", vendor, pci_class)

    assert hostchecks.check_accelerator("GPU", ["CPU"], tmp_path, tmp_path).status is Status.OK


def test_a_pinned_neighbour_is_named_with_its_cpus() -> None:
    finding = hostchecks.check_pinned_processes([Neighbour(pid=77, name="benchmark_app", cpus=frozenset({0, 1}))])

    assert finding.status is Status.WARN
    assert "pid 77 (benchmark_app) on CPUs 0-1" in finding.what
    assert "taskset" in finding.mend


def test_without_neighbours_all_is_well() -> None:
    assert hostchecks.check_pinned_processes([]).status is Status.OK


def test_no_place_for_leases_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path / "absent"))

    finding = hostchecks.check_core_leases()

    assert finding.status is Status.FAIL
    assert "OVRAY_LEASE_DIR" in finding.mend


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"OVRAY_CACHE_DIR": "/models", "XDG_CACHE_HOME": "/x"}, Path("/models")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/ovray")),
        ({}, Path.home() / ".cache/ovray"),
    ],
)
def test_the_model_cache_is_where_the_user_says(environment: dict[str, str], directory: Path) -> None:
    assert hostchecks.model_cache_directory(environment) == directory


def test_a_model_cache_that_can_still_be_made_is_fine(tmp_path: Path) -> None:
    assert hostchecks.check_model_cache(tmp_path / "not/yet/there").status is Status.OK


def test_a_model_cache_below_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    finding = hostchecks.check_model_cache(tmp_path / "file" / "cache")

    assert finding.status is Status.FAIL
    assert "OVRAY_CACHE_DIR" in finding.mend


@pytest.mark.parametrize(
    ("limit", "status"),
    [(1024, Status.WARN), (4095, Status.WARN), (4096, Status.OK), (resource.RLIM_INFINITY, Status.OK)],
)
def test_file_descriptors_are_counted_as_ray_counts_them(limit: int, status: Status) -> None:
    assert hostchecks.check_file_descriptors(limit).status is status


def test_dockers_default_shared_memory_is_too_small() -> None:
    finding = hostchecks.check_shared_memory(64 * 2**20)

    assert finding.status is Status.WARN
    assert "--shm-size" in finding.mend


@pytest.mark.parametrize(
    ("status", "is_healthy"), [(Status.OK, True), (Status.INFO, True), (Status.WARN, False), (Status.FAIL, False)]
)
def test_only_what_can_be_mended_is_trouble(status: Status, is_healthy: bool) -> None:
    finding = Finding(check="a-check", host="node-a", status=status, what="something")

    assert Diagnosis(findings=(finding,)).is_healthy is is_healthy
