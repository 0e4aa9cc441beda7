"""Probes this very host: without Ray, through a local Ray started here, and through a Ray task."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openvino
import pytest
import ray

from ovray.devices import probe
from ovray.devices.leases import CoreLeases
from ovray.devices.records import Host
from ovray.errors import ConfigError
from tests.integration.recorded import write_two_sockets


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def _seen_on_the_host(host: Host) -> Host:
    """Leave out what only Ray knows, and what other programs on this machine may change meanwhile."""
    return replace(
        host,
        name="",
        node_id="",
        address="",
        labels={},
        resources={},
        available_resources={},
        leased_cpus=frozenset(),
    )


def test_a_host_is_described_as_openvino_and_the_kernel_describe_it() -> None:
    host = probe.probe_local_host()

    core = openvino.Core()
    cpu = next(device for device in host.devices if device.name == "CPU")
    assert [device.name for device in host.devices] == core.available_devices
    assert cpu.full_name == core.get_property("CPU", "FULL_DEVICE_NAME")
    assert list(cpu.capabilities) == core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert cpu.architecture == core.get_property("CPU", "DEVICE_ARCHITECTURE")
    assert cpu.precision == core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    assert set(host.topology.allowed_cpus) <= os.sched_getaffinity(0)
    assert host.name == socket.gethostname()
    assert host.versions["openvino"].startswith("20")
    assert host.memory_bytes


def test_leased_cores_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_LEASE_DIR", str(tmp_path))
    with CoreLeases().acquire([0], "a test", 1.0) as lease:
        assert probe.probe_local_host().leased_cpus == set(lease.cpus)

    assert probe.probe_local_host().leased_cpus == set()


def test_a_recorded_tree_stands_for_this_hosts_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVRAY_SYSFS_ROOT", str(write_two_sockets(tmp_path)))

    host = probe.probe_local_host(probe.recorded_sysfs_root(os.environ))

    assert [[core.cpus for core in node.cores] for node in host.topology.nodes] == [[(0,), (1,)], [(2,), (3,)]]
    assert "CPU" in {device.name for device in host.devices}


def test_a_recorded_tree_without_cpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not stand for /sys"):
        probe.recorded_sysfs_root({"OVRAY_SYSFS_ROOT": str(tmp_path)})


def test_no_recorded_tree_means_the_real_one() -> None:
    assert probe.recorded_sysfs_root({}) is None


def test_an_openvino_that_cannot_be_loaded_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12 is missing')")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match=r"OpenVINO cannot be loaded there: libtbb.so.12 is missing"):
        probe.probe_local_host()


def test_an_openvino_that_kills_its_process_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match="ended with code -11 and said nothing"):
        probe.probe_local_host()


def test_an_openvino_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openvino.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match=r"no answer within 0.5 s"):
        probe.probe_local_host(timeout_s=0.5)


@pytest.mark.ray
def test_a_ray_of_our_own_needs_no_worker_for_the_look(local_ray: None) -> None:
    found = probe.probe_cluster()

    (host,) = found.hosts
    assert _seen_on_the_host(host) == _seen_on_the_host(probe.probe_local_host())
    assert host.node_id == ray.get_runtime_context().get_node_id()
    assert host.resources["CPU"] == 1.0
    assert host.available_resources["CPU"] == 1.0
    assert host.labels["ray.io/node-id"] == host.node_id
    assert found.left_out == ()


@pytest.mark.ray
def test_a_ray_task_sees_what_the_driver_sees(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    near = probe.probe_cluster()
    monkeypatch.setattr(probe, "_is_started_by_us", lambda node: False)

    far = probe.probe_cluster()

    assert [_seen_on_the_host(host) for host in far.hosts] == [_seen_on_the_host(host) for host in near.hosts]
