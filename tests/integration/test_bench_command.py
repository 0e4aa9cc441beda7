"""``ovray bench`` on real replicas, beside the real benchmark_app."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openvino as ov
import openvino.opset13 as ops
import pytest
import ray

from ovray.cli.main import main
from ovray.replica.sim_pace import COMING_BACK_S
from tests.integration.models import SQUEEZENET, a_perceptron, save

pytestmark = pytest.mark.slow

PARTS = ("end_to_end", "queue", "transport", "device")


@pytest.fixture(scope="module")
def _a_ray() -> Iterator[None]:
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _no_other_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray that happens to run on this machine is none of these tests' business."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["ovray", "bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def benchmark_app(*arguments: str | Path) -> None:
    program = [sys.executable, "-c", "from openvino.tools.benchmark.main import main; main()"]
    subprocess.run([*program, *map(str, arguments)], check=True, capture_output=True, timeout=200)


@pytest.mark.ray
@pytest.mark.usefixtures("_a_ray")
class TestMeasuring:
    def test_the_report_has_the_keys_of_benchmark_app_and_every_replica(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        ours.mkdir()
        theirs.mkdir()
        flags = ("-m", SQUEEZENET, "-hint", "throughput", "-niter", "10", "-api", "async", "-b", "2")
        report = ("-report_type", "no_counters", "-json_stats")

        code = run(
            monkeypatch,
            *(*flags, "-d", "CPU,SIM*2?ms=2", *report, "-report_folder", ours, "--ideal", "--share-cores"),
        )
        benchmark_app(*flags, "-d", "CPU", *report, "-report_folder", theirs)

        found = json.loads((ours / "benchmark_report.json").read_text())
        wanted = json.loads((theirs / "benchmark_report.json").read_text())
        assert code == 0
        assert found["cmd_options"].keys() == wanted["cmd_options"].keys() | {"--ideal", "--share-cores"}
        for section in ("configuration_setup", "execution_results"):
            assert found[section].keys() == wanted[section].keys()
        assert found["configuration_setup"]["batch size"] == wanted["configuration_setup"]["batch size"] == "2"
        assert set(found["latency"]) == set(PARTS)
        counts = [int(replica["total number of iterations"]) for replica in found["replicas"]]
        assert len(counts) == 3
        in_flight = int(found["configuration_setup"]["number of parallel infer requests"])
        assert sum(counts) == int(found["execution_results"]["total number of iterations"])
        assert sum(counts) >= 10
        assert sum(counts) % in_flight == 0
        # Two frames in 2 ms: a simulated device cannot give more than 1,000 a second.
        alone = [float(replica["throughput alone"]) for replica in found["replicas"] if "SIM" in replica["id"]]
        assert len(alone) == 2
        assert all(0 < fps <= 1000 for fps in alone)
        printed = capfd.readouterr().out
        assert "reached:" in printed
        assert printed.splitlines()[-1] == f"Throughput: {found['execution_results']['throughput']} FPS"

    def test_one_at_a_time_with_rising_shapes_writes_a_table_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        model = save(a_perceptron(), tmp_path / "model.xml")

        code = run(
            monkeypatch,
            *("-m", model, "-d", "SIM?ms=5", "-api", "sync", "-niter", "6", "-latency_percentile", "90", "--json"),
            *("-data_shape", "[1,32][3,32]", "-report_type", "no_counters", "-report_folder", tmp_path),
        )

        document: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        rows = list(csv.reader((tmp_path / "benchmark_report.csv").open(), delimiter=";"))
        assert code == 0
        assert (document["api"], document["hint"], document["nireq"]) == ("sync", "LATENCY", 1)
        result = document["result"]
        assert result["iterations"] == 6
        # 5 ms a row, one at a time, one and three rows in turn.
        assert result["split"]["device"]["min_s"] >= 0.005
        assert result["split"]["device"]["max_s"] >= 0.015
        # A request that comes back sooner than that counts as one that waited at the device.
        assert result["split"]["end_to_end"]["min_s"] >= result["split"]["device"]["min_s"] - COMING_BACK_S
        assert ["Execution results"] in rows
        assert "latency (90 percentile) (ms)" in [row[0] for row in rows if row]
        assert f"Replica {result['replicas'][0]['id']}" in [row[0] for row in rows if row]

    def test_inputs_of_half_a_byte_are_sent_as_benchmark_app_makes_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        x = ops.parameter(ov.PartialShape([-1, 4]), ov.Type.u4, name="x")
        model = save(ov.Model([ops.convert(x, "f32")], [x]), tmp_path / "model.xml")

        code = run(
            monkeypatch, "-m", model, "-d", "SIM?ms=1", "-data_shape", "[3,4]", "-niter", "6", "-hint", "latency"
        )

        assert code == 0, capfd.readouterr().err

    def test_no_iterations_compile_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code = run(monkeypatch, "-m", SQUEEZENET, "-d", "SIM?ms=1", "-niter", "0")

        printed = capfd.readouterr().out
        assert code == 0
        assert "compiled" in printed
        assert "Throughput" not in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-m", "no.onnx"), "model 'no.onnx' does not exist"),
        (("-m", str(SQUEEZENET), "-hint", "fast"), "-hint 'fast' is unknown"),
        (("-m", str(SQUEEZENET), "-hint", "none"), "-hint none"),
        (("-m", str(SQUEEZENET), "-api", "both"), "-api 'both' is unknown"),
        (("-m", str(SQUEEZENET), "-d", "CPU**2"), "CPU**2"),
        (("-m", str(SQUEEZENET), "-shape", "[1,3,7,7,7]"), "the inputs cannot be made"),
        (("-m", str(SQUEEZENET), "-niter", "-1"), "-niter -1"),
        (("-m", str(SQUEEZENET), "-t", "0"), "-t 0"),
        (("-m", str(SQUEEZENET), "-nireq", "0"), "-nireq"),
        (("-m", str(SQUEEZENET), "-report_type", "average_counters"), "no_counters is all there is"),
        (("-m", str(SQUEEZENET), "-report_type", "no_counters", "-report_folder", "no/such"), "is no folder"),
        (("-m", str(SQUEEZENET), "-load_config", "no.json"), "cannot be read"),
        (("-m", str(SQUEEZENET), "-config", "NUM_STREAMS"), "KEY=VALUE"),
        (("-m", str(SQUEEZENET), "-nstreams", "2"), "No such option"),
        ((), "-m"),
    ],
)
def test_bad_input_ends_with_code_2_before_anything_starts(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    was_initialized = ray.is_initialized()

    code = run(monkeypatch, *arguments)

    assert code == 2
    assert says in capfd.readouterr().err
    assert ray.is_initialized() == was_initialized
