"""``ovray plan`` on recorded machines, with and without a real Ray: what a person with that machine would want."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ovray.cli.main import main
from ovray.devices.probe import SYSFS_VARIABLE
from ovray.driver import planning
from ovray.errors import ConfigError
from tests.fixtures.sysfs import HYBRID_CLIENT, QUOTA_CONTAINER, TWO_SOCKETS_SMT, Machine, write_sysfs

pytestmark = pytest.mark.slow  # each looks at OpenVINO's devices in a process of its own


@pytest.fixture(autouse=True)
def _no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that happens to run on this machine is none of these tests' business."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


def record(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SYSFS_VARIABLE, str(write_sysfs(tmp_path, machine)))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ovray", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_both_sockets_of_a_recorded_machine_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record(TWO_SOCKETS_SMT, tmp_path, monkeypatch)

    code = run(monkeypatch, "--devices", "CPU")

    host = socket.gethostname()
    header, first, second = capfd.readouterr().out.splitlines()
    assert code == 0
    assert header.split() == [
        *("replica", "device", "host", "NUMA", "node", "CPUs"),
        *("threads", "streams", "nireq", "precision", "memory"),
    ]
    assert first.split()[:6] == [f"{host}/CPU.0#0", "CPU.0", host, "0", "0-15,32-47", "32"]
    assert second.split()[:6] == [f"{host}/CPU.1#0", "CPU.1", host, "1", "16-31,48-63", "32"]


def test_json_has_the_promised_keys_and_what_only_a_model_tells_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record(HYBRID_CLIENT, tmp_path, monkeypatch)

    code = run(monkeypatch, "--devices", "CPU", "--hint", "latency", "--precision", "f32", "--json")

    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    (replica,) = document["replicas"]
    assert code == 0
    assert document["warnings"] == []
    assert replica.pop("memory_policy") in ("preferred:0", "first-touch")
    assert replica == {
        "id": f"{socket.gethostname()}/CPU.0#0",
        "host": socket.gethostname(),
        "device": "CPU.0",
        "numa_node": 0,
        "cpus": [0, 2, 4, 6, 8, 10, 12, 14],
        "threads": 8,
        "streams": 1,
        "nireq": 1,
        "precision": "f32",
        "compile_s": None,
        "first_inference_ms": None,
        "rss_mb": None,
    }


def test_warnings_stand_below_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record(QUOTA_CONTAINER, tmp_path, monkeypatch)

    run(monkeypatch, "--devices", "CPU")

    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith(f"warning: the CPU quota of {socket.gethostname()} (2.5) allows 2 CPUs")


def test_an_unknown_device_ends_with_code_2_and_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record(TWO_SOCKETS_SMT, tmp_path, monkeypatch)

    code = run(monkeypatch, "--devices", "CPU.7")

    assert code == 2
    assert "nothing here is 'CPU.7'" in capfd.readouterr().err


def test_an_unknown_hint_is_refused() -> None:
    with pytest.raises(ConfigError, match="hint 'FAST' is unknown; legal are LATENCY, THROUGHPUT"):
        planning.plan(hint="FAST")


def test_without_a_cluster_this_machine_is_planned_and_no_ray_is_started() -> None:
    result = planning.plan(devices="CPU")

    assert {spec.host for spec in result.replicas} == {socket.gethostname()}
    assert {spec.node_id for spec in result.replicas} == {""}
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def _ray_of_one_cpu() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("_ray_of_one_cpu")
class TestWithARay:
    def test_a_recorded_machine_larger_than_ray_is_planned_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record(TWO_SOCKETS_SMT, tmp_path, monkeypatch)

        result = planning.plan(devices="CPU*4,SIM*8")

        assert [spec.ray_num_cpus for spec in result.replicas] == [4] * 8 + [0] * 8
        assert {spec.node_id for spec in result.replicas} == {ray.nodes()[0]["NodeID"]}

    def test_what_ray_has_not_got_is_a_warning_that_says_how_much_is_missing(self) -> None:
        cores = len(planning.plan(devices="CPU", share_cores=True).replicas[0].cores)
        if cores < 2:
            pytest.skip("this machine has no more cores than the Ray of this test")

        result = planning.plan(devices="CPU")

        assert [spec.ray_num_cpus for spec in result.replicas] == [1]
        (warning,) = [warning for warning in result.warnings if warning == result.shortage]
        assert f"1 of {cores} cores" in warning
        assert f"Ray was started there with 1 CPUs, --num-cpus={cores} would give all" in warning
