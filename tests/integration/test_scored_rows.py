"""Scores data sets through the real Ray on real replicas, and compares every row with plain OpenVINO's."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray.devices.leases import CoreLeases, Lease
from ovray.driver.job import Progress
from ovray.driver.placement import PlacementOptions
from ovray.replica.pinning import thread_affinities
from ovray.scoring.options import ScoreOptions
from ovray.scoring.score import run
from tests.integration import models
from tests.integration.scored import TOLERANCE, as_array, parts_of, plain_openvino, scores_in
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MY_CPUS = sorted(os.sched_getaffinity(0))
needs_two_cores = pytest.mark.skipif(len(MY_CPUS) < 2, reason="two replicas on disjoint cores need two cores")


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def feature_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five files of odd sizes and row groups, the last one a CSV; 5,137 rows with ``id`` and ``features``."""
    folder = tmp_path_factory.mktemp("features")
    chance = np.random.default_rng(1)
    paths, first = [], 0
    for number, (rows, group) in enumerate([(1, 1), (1_777, 333), (64, 64), (3_001, 1_000), (294, 7)]):
        values = chance.standard_normal((rows, models.FEATURES)).astype(np.float32)
        table = pa.table(
            {
                "id": np.arange(first, first + rows),
                "features": pa.FixedSizeListArray.from_arrays(values.reshape(-1), models.FEATURES),
            }
        )
        paths.append(folder / f"{number}.parquet")
        pq.write_table(table, paths[-1], row_group_size=group)
        first += rows
    return paths


def features_of(paths: list[Path]) -> np.ndarray:
    return as_array(pa.concat_tables([pq.read_table(path) for path in paths])["features"], models.FEATURES)


def score(model: Any, inputs: Any, output: Path, **options: Any) -> ovray.ScoreReport:
    """Score in f32, on whatever CPU: others would compute in bf16 by themselves."""
    return ovray.score(model, inputs, output=output, **{"devices": "CPU", "precision": "f32", **options})


def one_file(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return path


def when_all_are_there(count: int, folder: Path) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A preparation that waits until so many replicas are at it; else one might do all before another starts."""
    folder.mkdir()
    driver = os.getpid()

    def prepare(columns: Mapping[str, Any]) -> dict[str, Any]:
        # The driver tries it on the first rows, before there is a replica.
        if os.getpid() != driver:
            (folder / str(os.getpid())).touch()
            assert wait_until(lambda: len(list(folder.iterdir())) >= count), f"not all of {count} replicas came"
        return {"features": columns["features"]}

    return prepare


class TestRowsEqualThoseOfPlainOpenVINO:
    @pytest.mark.parametrize(
        ("devices", "replicas"),
        [
            ("CPU", 1),
            pytest.param("CPU*2", 2, marks=needs_two_cores),
            pytest.param(f"CPU@{MY_CPUS[0]},CPU@{MY_CPUS[-1]}", 2, marks=needs_two_cores),
        ],
    )
    def test_on_one_replica_and_on_two_with_disjoint_cores(
        self, devices: str, replicas: int, feature_files: list[Path], tmp_path: Path
    ) -> None:
        expected = plain_openvino(models.a_perceptron(), {"features": features_of(feature_files)})

        options = {} if replicas == 1 else {"preprocess": when_all_are_there(replicas, tmp_path / "there")}
        report = score(models.a_perceptron(), feature_files, tmp_path / "scores", devices=devices, **options)

        scores = scores_in(tmp_path / "scores")
        assert scores["id"].to_pylist() == list(range(5_137))
        assert np.abs(as_array(scores["logits"], 3) - expected["logits"]).max() < TOLERANCE
        assert np.abs(as_array(scores["total"], 1) - expected["total"]).max() < TOLERANCE
        assert len(report.replicas) == replicas
        cores = [set(cpus) for cpus in report.replicas["cpus"]]
        assert not set.intersection(*cores) or replicas == 1
        assert sum(report.replicas["rows"]) == report.rows == 5_137

    def test_of_a_conv_net_with_a_static_batch_of_1_and_images_as_bytes(self, tmp_path: Path) -> None:
        images = np.random.default_rng(2).integers(0, 256, (7, 3 * 224 * 224), dtype=np.uint8)
        column = pa.ListArray.from_arrays(np.arange(8, dtype=np.int32) * images.shape[1], images.reshape(-1))
        file = one_file(tmp_path / "images.parquet", image=column, label=list("abcdefg"))
        expected = plain_openvino(
            models.SQUEEZENET, {"data_0": images.reshape(7, 3, 224, 224).astype(np.float32)}, batch=1
        )

        score(models.SQUEEZENET, file, tmp_path / "scores")

        scores = scores_in(tmp_path / "scores")
        assert scores["label"].to_pylist() == list("abcdefg")
        assert scores.schema.field("softmaxout_1").type == pa.list_(pa.float32(), 1000)
        found = as_array(scores["softmaxout_1"], 1000)
        assert np.abs(found - expected["softmaxout_1"].reshape(7, 1000)).max() < TOLERANCE

    @pytest.mark.parametrize("batch_size", ["auto", 3])
    def test_of_a_static_batch_that_does_not_divide_the_rows(
        self, batch_size: Any, feature_files: list[Path], tmp_path: Path
    ) -> None:
        expected = plain_openvino(models.a_perceptron(), {"features": features_of(feature_files[2:3])})

        score(models.a_perceptron(4), feature_files[2], tmp_path / "a", batch_size=batch_size)
        score(models.a_perceptron(4), feature_files[2], tmp_path / "b", batch_size=batch_size, limit=61)

        scores = scores_in(tmp_path / "a")
        assert np.abs(as_array(scores["logits"], 3) - expected["logits"]).max() < TOLERANCE
        fewer = scores_in(tmp_path / "b")
        assert len(fewer) == 61
        assert np.abs(as_array(fewer["logits"], 3) - expected["logits"][:61]).max() < TOLERANCE

    def test_of_two_inputs_and_two_outputs_with_their_types_and_shapes(self, tmp_path: Path) -> None:
        chance = np.random.default_rng(3)
        grids = chance.standard_normal((23, 2, 3)).astype(np.float32)
        factors = chance.standard_normal(23)
        file = one_file(tmp_path / "pairs.parquet", factor=factors, grid=grids.tolist(), id=range(23))
        expected = plain_openvino(models.a_pair_model(), {"grid": grids, "factor": factors.astype(np.float32)})

        score(models.a_pair_model(), file, tmp_path / "scores")

        scores = scores_in(tmp_path / "scores")
        assert scores.schema.names == ["id", "scaled", "best"]
        assert scores.schema.field("scaled").type == pa.list_(pa.float32(), 6)
        assert scores.schema.field("best").type == pa.int64()
        assert np.abs(as_array(scores["scaled"], 2, 3) - expected["scaled"]).max() < TOLERANCE
        assert scores["best"].to_pylist() == expected["best"].tolist()

    def test_where_rows_have_outputs_of_their_own_length(self, tmp_path: Path) -> None:
        rows = [[0, 1, 0, 2, 0, 3], [0] * 6, [1] * 6, [0, 0, 0, 0, 0, 9]]
        file = one_file(tmp_path / "rows.parquet", x=pa.array(rows, pa.list_(pa.int8())))

        score(models.a_positions_model(), file, tmp_path / "scores")

        scores = scores_in(tmp_path / "scores")
        assert scores.schema.field("positions").type == pa.list_(pa.int64())
        assert scores["positions"].to_pylist() == [[1, 3, 5], [], [0, 1, 2, 3, 4, 5], [5]]

    def test_of_a_model_that_takes_one_row_without_a_batch(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(4).standard_normal((9, 6)).astype(np.float32)
        file = one_file(tmp_path / "rows.parquet", x=rows.tolist())

        score(models.a_model_without_batch(), file, tmp_path / "scores")

        scores = scores_in(tmp_path / "scores")
        assert scores.schema.field("sum").type == pa.float32()
        assert np.abs(as_array(scores["sum"]) - rows.sum(axis=1)).max() < TOLERANCE
        assert np.array_equal(as_array(scores["double"], 6), 2 * rows)

    def test_of_narrow_types_which_stay_as_they_are(self, tmp_path: Path) -> None:
        rows = np.arange(60, dtype=np.float64).reshape(10, 6)
        file = one_file(tmp_path / "rows.parquet", x=rows.tolist())

        score(models.a_half_model(), file, tmp_path / "scores")

        scores = scores_in(tmp_path / "scores")
        assert scores.schema.field("half").type == pa.list_(pa.float16(), 6)
        assert scores.schema.field("bytes").type == pa.list_(pa.uint8(), 6)
        assert np.array_equal(as_array(scores["half"], 6), rows)
        assert np.array_equal(as_array(scores["bytes"], 6), rows)

    def test_of_text(self, tmp_path: Path) -> None:
        words = ["", "é", "a longer word than any small string holds in place", "x"] * 6
        file = one_file(tmp_path / "words.parquet", text=words)

        score(models.an_echo_model(), file, tmp_path / "scores")

        assert scores_in(tmp_path / "scores")["echo"].to_pylist() == words


class TestInputsAndReport:
    def test_inputs_count_in_the_order_given_and_folders_by_name(self, tmp_path: Path) -> None:
        features = [f"f{number}" for number in range(models.FEATURES)]
        names = ["b.parquet", "a.csv", "folder/2.parquet", "folder/1.csv", "folder/10.parquet"]
        (tmp_path / "folder").mkdir()
        for number, name in enumerate(names):
            table = pa.table({"id": [number], **{feature: [float(number)] for feature in features}})
            write = pq.write_table if name.endswith("parquet") else pacsv.write_csv
            write(table, tmp_path / name)
        (tmp_path / "folder" / "_SUCCESS").touch()

        score(
            models.a_perceptron(),
            [tmp_path / "b.parquet", str(tmp_path / "*.csv"), tmp_path / "folder"],
            tmp_path / "scores",
            input="f*",
        )

        assert scores_in(tmp_path / "scores")["id"].to_pylist() == [0, 1, 3, 4, 2]

    def test_a_report_has_the_figures_and_a_data_frame_of_replicas(
        self, feature_files: list[Path], tmp_path: Path
    ) -> None:
        report = ovray.score(models.a_perceptron(), feature_files, output=tmp_path / "scores")

        assert (report.rows, report.errors, report.resumed_rows) == (5_137, 0, 0)
        assert report.output == str(tmp_path / "scores")
        assert report.rows_per_s == pytest.approx(report.rows / report.run_seconds)
        assert 0 < report.run_seconds < report.seconds
        assert isinstance(report.replicas, pd.DataFrame)
        assert list(report.replicas.columns) == [
            *("id", "host", "device", "pid", "cpus", "nireq", "rows", "busy_s")
        ]

    def test_pandas_opens_the_folder_with_the_rows_in_input_order(
        self, feature_files: list[Path], tmp_path: Path
    ) -> None:
        score(models.a_perceptron(), feature_files, tmp_path / "scores", limit=4_000, batch_size=16)

        frame = pd.read_parquet(tmp_path / "scores")
        assert frame["id"].tolist() == list(range(4_000))
        assert len(parts_of(tmp_path / "scores")) >= 1

    def test_the_ray_of_the_caller_stays_usable_and_nothing_is_left_in_it(
        self, feature_files: list[Path], tmp_path: Path
    ) -> None:
        score(models.a_perceptron(), feature_files[:2], tmp_path / "first")
        descriptors_before = len(os.listdir("/proc/self/fd"))
        threads_before = len(os.listdir("/proc/self/task"))

        for number in range(3):
            score(models.a_perceptron(), feature_files[:2], tmp_path / str(number))
            assert CoreLeases().held() == {}, "the next job finds the cores free"

        assert ray.get(ray.remote(lambda: 42).options(num_cpus=0).remote(), timeout=60) == 42
        assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors_before + 3)
        assert wait_until(lambda: len(os.listdir("/proc/self/task")) <= threads_before + 3)

    def test_a_model_in_memory_is_left_as_it_was(self, feature_files: list[Path], tmp_path: Path) -> None:
        model = models.a_perceptron()

        score(model, feature_files[0], tmp_path / "scores", batch_size=8)

        assert model.input("features").partial_shape == ov.PartialShape([-1, models.FEATURES])


class TestWhatOnlyPythonCanAskFor:
    @pytest.mark.parametrize(
        "options", [{"batch_size": "8"}, {"batch_size": 8.0}, {"batch_size": 0}, {"limit": 2.5}, {"limit": 0}]
    )
    def test_numbers_that_are_none_are_refused(
        self, options: Any, feature_files: list[Path], tmp_path: Path
    ) -> None:
        with pytest.raises(ovray.ConfigError, match="whole number"):
            score(models.a_perceptron(), feature_files, tmp_path / "scores", **options)

    def test_one_column_to_keep_and_urls_of_files(self, feature_files: list[Path], tmp_path: Path) -> None:
        output = tmp_path / "new" / "scores"

        score(models.a_perceptron(), feature_files[2].as_uri(), output.as_uri(), keep="id", limit=9)  # type: ignore[arg-type]

        assert scores_in(output).schema.names == ["id", "logits", "total"]


class TestRowsThatCannotBeFed:
    def test_the_file_and_row_are_named_and_finished_parts_stay_whole(self, tmp_path: Path) -> None:
        rows = np.ones((900, models.FEATURES), np.float32).tolist()
        for name, missing in {"a": None, "b": 123}.items():
            features = [None if number == missing else row for number, row in enumerate(rows)]
            pq.write_table(
                pa.table({"features": pa.array(features, pa.list_(pa.float32()))}),
                tmp_path / f"{name}.parquet",
                row_group_size=100,
            )

        slow = models.a_perceptron(layers=4, width=1024)

        with pytest.raises(ovray.DataError) as raised:
            score(slow, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "scores", batch_size=1)

        assert f"{tmp_path / 'b.parquet'}, row 123 " in str(raised.value)
        assert "column 'features' is null" in str(raised.value)
        for part in (tmp_path / "scores").glob("*.parquet"):
            start, stop = (int(text) for text in part.stem.split("-")[1:])
            assert pq.read_table(part).num_rows == stop - start


@needs_two_cores
class TestReplicasWhileRowsFlow:
    """A model that takes a millisecond a row, so that there is time to look."""

    ROWS = 6_000

    @pytest.fixture
    def rows_file(self, tmp_path: Path) -> Path:
        values = np.random.default_rng(5).standard_normal((self.ROWS, models.FEATURES)).astype(np.float32)
        path = tmp_path / "rows.parquet"
        table = pa.table({"id": np.arange(self.ROWS), "features": list(values)})
        pq.write_table(table, path, row_group_size=200)
        return path

    def run(self, rows_file: Path, output: Path, look: Callable[[Progress], None]) -> ovray.ScoreReport:
        """Score on two replicas and call ``look`` once, when rows are done and each replica holds some."""
        looked: list[bool] = []

        def watch(news: object) -> None:
            if not isinstance(news, Progress) or looked or not news.rows_done:
                return
            if [one.rows_outstanding > 0 for one in news.snapshot.replicas] == [True, True]:
                looked.append(True)
                look(news)

        placement = PlacementOptions(devices=f"CPU@{MY_CPUS[0]},CPU@{MY_CPUS[1]}", precision="f32")
        model = models.a_perceptron(layers=6, width=2048)
        report = run(model, [rows_file], output, ScoreOptions(placement=placement), watch)
        assert looked, "the job was over before both replicas were at work"
        return report

    def test_every_thread_of_each_replica_is_on_its_cores(self, rows_file: Path, tmp_path: Path) -> None:
        seen: dict[int, dict[int, frozenset[int]]] = {}

        report = self.run(
            rows_file,
            tmp_path / "scores",
            lambda _: seen.update({pid: thread_affinities(pid) for pid in replica_pids()}),
        )

        cores = {row.pid: frozenset(row.cpus) for row in report.replicas.itertuples()}
        assert set(seen) == set(cores), "the pids of the report are those that ran"
        assert not frozenset.intersection(*cores.values())
        for pid, threads in seen.items():
            assert len(threads) > 5, "Ray's and OpenVINO's own threads are there"
            assert set(threads.values()) == {cores[pid]}
        assert (report.replicas["rows"] > 0).all()

    def test_work_of_a_killed_replica_is_done_by_the_other_or_by_its_successor(
        self, rows_file: Path, tmp_path: Path
    ) -> None:
        held: list[int] = []
        victims: list[int] = []

        def kill_one(news: Progress) -> None:
            victims.append(replica_pids()[0])
            os.kill(victims[0], signal.SIGKILL)
            held.extend(one.rows_outstanding for one in news.snapshot.replicas)

        report = self.run(rows_file, tmp_path / "scores", kill_one)

        assert min(held) > 0, "whichever was killed held rows"
        assert scores_in(tmp_path / "scores")["id"].to_pylist() == list(range(self.ROWS))
        assert report.replicas["rows"].sum() == self.ROWS


class TestCoresThatOthersHold:
    @pytest.fixture
    def lease(self) -> Iterator[Lease]:
        # The replicas of the test before may still be ending where the machine is busy.
        with CoreLeases().acquire(MY_CPUS, "another job", timeout_s=60) as lease:
            yield lease

    @pytest.mark.usefixtures("lease")
    def test_the_owner_is_named_when_a_job_may_not_wait(self, feature_files: list[Path], tmp_path: Path) -> None:
        with pytest.raises(ovray.ReplicaError) as raised:
            score(models.a_perceptron(), feature_files, tmp_path / "scores", lease_timeout_s=0.5)

        assert f"by pid {os.getpid()} (another job)" in str(raised.value)
        assert "--lease-timeout" in str(raised.value)
        assert not (tmp_path / "scores").exists()

    def test_a_job_waits_for_them_and_then_scores(
        self, lease: Lease, feature_files: list[Path], tmp_path: Path
    ) -> None:
        released: list[bool] = []

        def release(news: object) -> None:
            if isinstance(news, Progress) and news.starting and not released:
                assert not list((tmp_path / "scores").glob("*.parquet"))
                released.append(True)
                lease.release()

        options = ScoreOptions(placement=PlacementOptions(devices="CPU"))
        report = run(models.a_perceptron(), feature_files, tmp_path / "scores", options, release)

        assert released
        assert report.replicas["cpus"].tolist() == [tuple(MY_CPUS)]
        assert len(scores_in(tmp_path / "scores")) == report.rows


def replica_pids() -> list[int]:
    """Return the processes of replicas that this process's Ray runs."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # also of one that has ended and is not buried yet
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::Replica"):
                found.append(child.pid)
    return found
