"""Probes and examines a cluster of three Ray nodes, two of which cannot take part."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import ovray
from ovray.devices.doctor import diagnose
from ovray.devices.findings import Diagnosis, Status
from ovray.devices.inventory import ClusterProbe
from ovray.devices.probe import probe_cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    broken, old = tmp_path_factory.mktemp("broken"), tmp_path_factory.mktemp("old")
    (broken / "openvino.py").write_text("raise ImportError('libtbb.so.12 is missing')")
    metadata = old / "openvino-2023.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2023.1.0\n")
    nodes = Cluster(initialize_head=True, head_node_args={"labels": {"rack": "r1"}, "include_dashboard": False})
    try:
        nodes.add_node(env_vars=_path_with(broken), labels={"node": "broken"})
        nodes.add_node(env_vars=_path_with(old), labels={"node": "old"})
        ray.init(address=nodes.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def found(cluster: None) -> ClusterProbe:
    return probe_cluster()


@pytest.fixture(scope="module")
def diagnosis(cluster: None) -> Diagnosis:
    return diagnose()


def _path_with(folder: Path) -> dict[str, str]:
    ovray_root = Path(ovray.__file__).parents[1]
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ovray_root)])}


def test_a_node_that_can_take_part_is_there_with_its_labels(found: ClusterProbe) -> None:
    assert [host.labels.get("rack") for host in found.hosts] == ["r1"]


def test_a_node_where_openvino_cannot_load_is_left_out_with_the_reason(found: ClusterProbe) -> None:
    assert "OpenVINO cannot be loaded there: libtbb.so.12 is missing" in {left.reason for left in found.left_out}


def test_a_node_with_another_version_is_left_out_with_both_versions(found: ClusterProbe) -> None:
    assert any(
        left.reason.startswith("its versions differ: openvino 2023.1.0 (here: 2026.") for left in found.left_out
    )


def test_nothing_else_is_left_out(found: ClusterProbe) -> None:
    assert len(found.left_out) == 2


def test_the_doctor_names_the_nodes_that_cannot_take_part(diagnosis: Diagnosis) -> None:
    failures = {(finding.check, finding.what) for finding in diagnosis.findings if finding.status is Status.FAIL}

    assert {check for check, _ in failures} == {"node", "versions"}
    assert any("libtbb.so.12 is missing; its devices are left out" in what for _, what in failures)
    assert not diagnosis.is_healthy


def test_the_doctor_finds_the_small_object_store_of_a_test_cluster(diagnosis: Diagnosis) -> None:
    (finding,) = [finding for finding in diagnosis.findings if finding.check == "object-store"]

    assert finding.status is Status.WARN
    assert "holds 150 MiB" in finding.what


def test_the_clocks_of_one_machine_agree(diagnosis: Diagnosis) -> None:
    assert [finding.status for finding in diagnosis.findings if finding.check == "clock"] == [Status.OK] * 3
