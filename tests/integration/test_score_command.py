"""Runs ``ovray score`` and ``ovray demo`` as people do, and looks at what they print and write.

Most of it goes through the real command line in this process and one Ray; what is about processes, descriptors and
folders is a real command.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from ovray.cli.main import app
from ovray.errors import ConfigError
from tests.data_builders import every_kind_of_column
from tests.integration import models
from tests.integration.commands import ran
from tests.integration.scored import TOLERANCE, as_array, parts_of, plain_openvino, scores_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MY_CPUS = sorted(os.sched_getaffinity(0))
ROWS = 50

JSON_KEYS = {"rows", "seconds", "run_seconds", "rows_per_s", "errors", "resumed_rows", "output", "run", "replicas"}
REPLICA_TYPES = {
    **{"id": str, "host": str, "device": str},
    **{"pid": int, "cpus": list, "nireq": int, "rows": int, "busy_s": float},
}


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model and a file that has the columns ``id``, ``features`` and ``label``."""
    models.save(models.a_perceptron(), tmp_path / "model.xml")
    labels = ["even", "odd"] * (ROWS // 2)
    write(tmp_path / "rows.parquet", id=range(ROWS), features=list(features(ROWS)), label=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def features(rows: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((rows, models.FEATURES)).astype(np.float32)


def write(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def score(*arguments: str) -> None:
    """Run the command line ``ovray score``, on the CPU and in f32 unless told otherwise, into ``scores``."""
    ours = ["--output", "scores", "--devices", "CPU", "--precision", "f32"]
    app(["score", *ours, *arguments], standalone_mode=False)


class TestKeptColumns:
    def test_every_type_comes_through_as_it_was(self, folder: Path) -> None:
        kinds = every_kind_of_column()
        both = kinds.append_column("features", pa.array(list(features(3))))
        pq.write_table(both, folder / "kinds.parquet", row_group_size=2)

        score("model.xml", "kinds.parquet", "kinds.parquet")

        before = pa.concat_tables([pq.read_table(folder / "kinds.parquet")] * 2).drop_columns("features")
        after = scores_in(folder / "scores")
        assert after.schema.names == [*before.schema.names, "logits", "total"]
        for name in before.schema.names:
            assert after.schema.field(name).equals(before.schema.field(name), check_metadata=True)
            assert repr(after[name].to_pylist()) == repr(before[name].to_pylist()), name

    @pytest.mark.parametrize(
        ("keep", "kept"),
        [
            ([], ["id", "label"]),
            (["--keep", "label"], ["label"]),
            (["--keep", "label, features"], ["label", "features"]),
            (["--keep", ""], []),
        ],
    )
    def test_keep_says_which(self, keep: list[str], kept: list[str], folder: Path) -> None:
        score("model.xml", "rows.parquet", *keep)

        scores = scores_in(folder / "scores")
        assert scores.schema.names == [*kept, "logits", "total"]
        assert len(scores) == ROWS


class TestInputs:
    def test_many_columns_make_one_vector_in_column_order(self, folder: Path) -> None:
        rows = features(20)
        columns = {f"f{number}": rows[:, number] for number in reversed(range(models.FEATURES))}
        write(folder / "wide.parquet", id=range(20), **columns)
        expected = plain_openvino(models.a_perceptron(), {"features": rows[:, ::-1].copy()})

        score("model.xml", "wide.parquet", "--input", "features=f*")

        scores = scores_in(folder / "scores")
        assert scores.schema.names == ["id", "logits", "total"]
        assert np.abs(as_array(scores["logits"], 3) - expected["logits"]).max() < TOLERANCE

    def test_each_input_of_a_model_can_be_given_its_column(self, folder: Path) -> None:
        models.save(models.a_pair_model(), folder / "pair.xml")
        write(folder / "pairs.parquet", a=[[1.0] * 6, [2.0] * 6], b=[10, 20], c=[0.5, 0.5])

        score("pair.xml", "pairs.parquet", "--input", "factor=b", "--input", "grid=a")

        scores = scores_in(folder / "scores")
        assert scores["c"].to_pylist() == [0.5, 0.5]
        assert as_array(scores["scaled"], 6).tolist() == [[10.0] * 6, [40.0] * 6]

    def test_a_limit_takes_the_first_rows_over_all_files(self, folder: Path) -> None:
        write(folder / "more.parquet", id=range(100, 150), features=list(features(ROWS)), label=["x"] * ROWS)

        score("model.xml", "more.parquet", "rows.parquet", "--limit", "61")

        assert scores_in(folder / "scores")["id"].to_pylist() == [*range(100, 150), *range(11)]


class TestOptions:
    @pytest.mark.parametrize("batch_size", ["1", "7", "64", "auto"])
    def test_rows_are_the_same_whatever_the_batch(self, batch_size: str, folder: Path) -> None:
        expected = plain_openvino(models.a_perceptron(), {"features": features(ROWS)})

        score("model.xml", "rows.parquet", "--batch-size", batch_size, "--hint", "latency")

        found = as_array(scores_in(folder / "scores")["logits"], 3)
        assert np.abs(found - expected["logits"]).max() < TOLERANCE

    def test_properties_and_requests_reach_openvino(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cache = folder / "cache"

        score("model.xml", "rows.parquet", "--json", "--config", f"CACHE_DIR={cache}", "--devices", "CPU(3)")

        assert list(cache.glob("*.blob")), "OpenVINO kept the compiled model where it was told to"
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["replicas"][0]["nireq"] == 3

    def test_a_property_that_openvino_does_not_know_is_refused(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
            score("model.xml", "rows.parquet", "--config", "NO_SUCH_KEY=1")
        assert not (folder / "scores").exists()

    @pytest.mark.parametrize("device", ["CPU.77", "CPU@4097", "no-such-host/CPU"])
    def test_a_device_that_is_not_there_is_refused(self, device: str, folder: Path) -> None:
        with pytest.raises(ConfigError, match="CPU"):
            score("model.xml", "rows.parquet", "--devices", device)
        assert not (folder / "scores").exists()

    def test_quiet_prints_nothing(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        score("model.xml", "rows.parquet", "--quiet")

        assert capfd.readouterr().out == ""

    def test_a_table_names_replica_device_host_cores_rows_share_and_busy(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        score("model.xml", "rows.parquet")

        lines = capsys.readouterr().out.splitlines()
        (header,) = [line for line in lines if line.startswith("replica")]
        assert header.split() == ["replica", "device", "host", "cores", "rows", "share", "busy", "%"]
        row = lines[lines.index(header) + 1].split()
        assert row[0].endswith("/CPU.0#0")
        assert row[-3:-1] == [str(ROWS), "100%"]
        assert lines[-1].startswith(f"{ROWS} rows in ")


class TestRealCommands:
    def test_pandas_whose_import_takes_long_is_left_for_the_end(self) -> None:
        script = "import sys, ovray.cli.score, ovray.scoring.score; print('pandas' in sys.modules)"

        printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert printed.stdout == "False\n"

    def test_score_prints_json_on_its_last_line_and_leaves_no_process(self, folder: Path) -> None:
        command = ran(folder, "score", "model.xml", "rows.parquet", "--output", "new/scores", "--json")

        report = command.json()
        assert command.process.returncode == 0, command.stderr
        assert command.stderr == ""
        assert set(report) == JSON_KEYS
        assert (report["rows"], report["errors"], report["resumed_rows"]) == (ROWS, 0, 0)
        assert report["output"] == "new/scores"
        assert 0 < report["run_seconds"] < report["seconds"]
        assert report["rows_per_s"] == pytest.approx(ROWS / report["run_seconds"])
        assert sum(replica["rows"] for replica in report["replicas"]) == ROWS
        for replica in report["replicas"]:
            assert {key: type(value) for key, value in replica.items()} == REPLICA_TYPES
            assert all(type(cpu) is int for cpu in replica["cpus"])
        assert report["replicas"][0]["device"].startswith("CPU")
        assert report["replicas"][0]["id"] == f"{report['replicas'][0]['host']}/CPU.0#0"
        parts_of(folder / "new" / "scores")
        assert pd.read_parquet(folder / "new" / "scores")["id"].tolist() == list(range(ROWS))
        assert command.leaves_nothing(), command.processes()

    def test_demo_runs_anywhere_and_says_how_well_it_did(self, tmp_path: Path) -> None:
        command = ran(tmp_path, "demo")

        assert command.process.returncode == 0, command.stderr
        (line,) = [line for line in command.stdout.splitlines() if line.startswith("accuracy")]
        assert float(line.split()[1].rstrip(":")) == pytest.approx(0.98, abs=0.01)
        assert "rows/s" in command.stdout
        assert list(tmp_path.iterdir()) == []
        assert command.leaves_nothing(), command.processes()
