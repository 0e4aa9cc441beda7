"""Runs ``ovray devices`` and ``ovray doctor`` as a person does: alone on a machine, and against a sick cluster."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import openvino
import psutil
import pytest

from tests.integration.processes import running
from tests.integration.recorded import write_two_sockets
from tests.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.ray

#: Of checks that other programs on a shared test machine can upset.
OTHERS_CAN_UPSET = {"pinned-processes"}

#: Is a head node; stops when told to.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"object_store_memory": 300 * 2**20, "num_cpus": 1})
print(cluster.address)
sys.stdin.readline()
cluster.shutdown()
print("stopped")
"""


@pytest.fixture(scope="module")
def sick_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running Ray without tokens, whose user cannot write the model cache."""
    file = tmp_path_factory.mktemp("cache") / "file"
    file.touch()
    with running(CLUSTER, RAY_AUTH_MODE="disabled", OVRAY_CACHE_DIR=str(file / "cache")) as cluster:
        yield cluster.read_line()
        cluster.tell("stop")
        assert cluster.read_line() == "stopped"


def ovray(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ovray.cli.main import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )


def _processes_marked(mark: str) -> list[str]:
    """Return the processes that descend from one whose environment had this mark."""
    marked = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("OVRAY_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                marked.append(process.name())
        except psutil.Error:
            continue
    return marked


def test_devices_shows_this_host_and_leaves_no_process_behind() -> None:
    mark = uuid.uuid4().hex

    done = ovray("devices", "--json", OVRAY_TEST_MARK=mark)

    (host,) = json.loads(done.stdout.splitlines()[-1])["hosts"]
    assert done.returncode == 0
    assert [device["device"] for device in host["devices"]] == openvino.Core().available_devices
    assert {cpu for node in host["numa_nodes"] for cpu in node["cpus"]} <= os.sched_getaffinity(0)
    assert wait_until(lambda: not _processes_marked(mark)), _processes_marked(mark)


def test_a_healthy_machine_gets_code_0(tmp_path: Path) -> None:
    done = ovray("doctor", "--json", OVRAY_LEASE_DIR=str(tmp_path), OVRAY_CACHE_DIR=str(tmp_path / "cache"))

    report = json.loads(done.stdout.splitlines()[-1])
    troubles = {row["check"] for row in report["findings"] if row["status"] in ("warn", "fail")}
    assert troubles <= OTHERS_CAN_UPSET
    assert done.returncode == (1 if troubles else 0)
    assert report["healthy"] is not bool(troubles)


def test_an_address_where_nothing_answers_is_one_line_and_code_2() -> None:
    done = ovray("devices", "--address", "127.0.0.1:1")

    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices_of_a_recorded_tree_are_a_table_of_its_nodes(sick_cluster: str, tmp_path: Path) -> None:
    done = ovray("devices", "--address", sick_cluster, OVRAY_SYSFS_ROOT=str(write_two_sockets(tmp_path)))

    assert "4 cores, 4 CPUs, no CPU quota" in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("CPU.0") and " 0-1 " in line for line in lines)
    assert any(line.startswith("CPU.1") and " 2-3 " in line for line in lines)


def test_the_doctor_finds_what_is_wrong_with_a_cluster(sick_cluster: str) -> None:
    done = ovray("doctor", "--json", "--address", sick_cluster)

    findings = json.loads(done.stdout.splitlines()[-1])["findings"]
    troubles = {(row["check"], row["status"]) for row in findings if row["status"] in ("warn", "fail")}
    assert done.returncode == 1
    assert {("token-auth", "warn"), ("model-cache", "fail")} <= troubles


def test_the_doctor_says_how_to_mend_a_quota_below_the_mask(sick_cluster: str, tmp_path: Path) -> None:
    tree = write_two_sockets(tmp_path)
    (tree / "fs/cgroup").mkdir(parents=True)
    (tree / "fs/cgroup/cpu.max").write_text("250000 100000\n")

    done = ovray("doctor", "--address", sick_cluster, OVRAY_SYSFS_ROOT=str(tree))

    assert done.returncode == 1
    assert "quota is 2.5 CPUs, but its mask shows 4: ovray uses 2" in done.stdout
    assert "to mend it: give the container whole CPUs" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 to mend."
