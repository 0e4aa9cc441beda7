"""Iterates over results while others are scored: in order or not, slowly, not to the end, while replicas die."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray.devices.leases import CoreLeases
from tests.integration import models
from tests.integration.scored import TOLERANCE, plain_openvino
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = 200_011
MY_CPUS = sorted(os.sched_getaffinity(0))
needs_two_cores = pytest.mark.skipif(len(MY_CPUS) < 2, reason="two replicas on disjoint cores need two cores")


@pytest.fixture(scope="module")
def lease_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("leases")


@pytest.fixture(scope="module", autouse=True)
def _a_ray(lease_folder: Path) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(lease_folder))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((ROWS, models.FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(features: np.ndarray) -> np.ndarray:
    return plain_openvino(models.a_perceptron(), {"features": features})["total"][:, 0]


def iter_score(inputs: Any, **options: Any) -> Iterator[pd.DataFrame]:
    everywhere = {"devices": "CPU", "precision": "f32", "outputs": "total"}
    return ovray.iter_score(models.a_perceptron(), inputs, **{**everywhere, **options})


def replicas(lease_folder: Path) -> list[psutil.Process]:
    """Return the processes that replicas of this test run in."""
    found = []
    for process in psutil.process_iter():
        try:
            is_replica = process.name().startswith("ray::Replica")
            if is_replica and process.environ().get("OVRAY_LEASE_DIR") == str(lease_folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_all_is_free(lease_folder: Path) -> None:
    """Every core can be leased, every CPU claimed, and no replica lives, at once or very soon."""
    CoreLeases().acquire(tuple(MY_CPUS), "a test", 5.0).release()
    assert wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    assert wait_until(lambda: not replicas(lease_folder))


def assert_totals(frames: list[pd.DataFrame], plain: np.ndarray) -> None:
    together = pd.concat(frames).sort_index()
    assert together.index.tolist() == list(range(len(plain)))
    assert np.abs(together["total"].to_numpy() - plain).max() < TOLERANCE


class TestEveryRowComesOnce:
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("devices", ["CPU", pytest.param("CPU*2", marks=needs_two_cores)])
    def test_whether_ordered_or_not(
        self, features: np.ndarray, plain: np.ndarray, ordered: bool, devices: str
    ) -> None:
        # Half a microsecond a chunk: no machine does half of these rows in that, so that there are several.
        frames = list(iter_score(features, ordered=ordered, devices=devices, commit_every_s=1e-6))

        if ordered:
            assert [frame.index[0] for frame in frames] == sorted(frame.index[0] for frame in frames)
        assert max(map(len, frames)) < ROWS / 2
        assert_totals(frames, plain)

    def test_of_files(self, tmp_path: Path, features: np.ndarray, plain: np.ndarray) -> None:
        column = pa.FixedSizeListArray.from_arrays(features.reshape(-1), models.FEATURES)
        pq.write_table(pa.table({"id": np.arange(ROWS), "features": column}), tmp_path / "a.parquet")

        frames = list(iter_score(tmp_path / "a.parquet"))

        assert_totals(frames, plain)
        assert pd.concat(frames)["id"].tolist() == list(range(ROWS))

    def test_of_a_data_frame_with_its_index(self, features: np.ndarray, plain: np.ndarray) -> None:
        index = np.arange(ROWS)[::-1]
        frame = pd.DataFrame({"id": index, "features": list(features)}, index=index)

        together = pd.concat(list(iter_score(frame)))

        assert together.index.equals(frame.index)
        assert together["id"].equals(frame["id"])
        assert np.abs(together["total"].to_numpy() - plain).max() < TOLERANCE

    def test_of_batches_with_the_columns_that_are_carried_over(
        self, features: np.ndarray, plain: np.ndarray
    ) -> None:
        batches = (
            {"id": np.arange(start, min(start + 7_777, ROWS)), "features": features[start : start + 7_777]}
            for start in range(0, ROWS, 7_777)
        )

        frames = list(iter_score(batches))

        assert_totals(frames, plain)
        assert pd.concat(frames)["id"].tolist() == list(range(ROWS))

    def test_while_a_device_is_still_compiling(self, features: np.ndarray) -> None:
        devices = "SIM?ms=0.01,SIM?compile_s=3600"

        frames = list(ovray.iter_score(models.a_perceptron(), features, devices=devices))

        assert pd.concat(frames).index.tolist() == list(range(ROWS))

    @needs_two_cores
    def test_also_when_a_replica_is_killed(
        self, features: np.ndarray, plain: np.ndarray, lease_folder: Path
    ) -> None:
        frames = []
        some = features[:20_000]  # one by one, which takes long enough for a kill
        with closing(iter_score(some, devices="CPU*2", batch_size=1, ordered=False)) as scored:
            frames.append(next(scored))
            assert wait_until(lambda: len(replicas(lease_folder)) == 2)
            killed = replicas(lease_folder)[0]
            killed.send_signal(signal.SIGKILL)
            assert wait_until(lambda: not killed.is_running())
            frames.extend(scored)

        assert_totals(frames, plain[:20_000])


class Endless:
    """Gives batches without end and counts the rows."""

    def __init__(self, batch: np.ndarray) -> None:
        self._batch = batch
        self.rows = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            self.rows += len(self._batch)
            yield self._batch


class TestASlowConsumer:
    @pytest.mark.parametrize("ordered", [True, False])
    def test_is_not_run_away_from(self, ordered: bool) -> None:
        # Rows of 600 KB, of which a second's work would fill the memory of most machines.
        source = Endless(np.zeros((8, 3 * 224 * 224), np.float32))
        model = models.a_wide_sum(3 * 224 * 224)
        # 64 MiB of rows for the replica, the batch that is being fetched, and the one in the consumer's hands.
        most = 64 * 2**20 // (4 * 3 * 224 * 224) + 2 * 8
        taken = 0

        with closing(ovray.iter_score(model, source, devices="SIM?ms=0.1", ordered=ordered)) as scored:
            for _ in range(5):
                taken += len(next(scored))
                assert not wait_until(lambda: source.rows - taken > most, 0.3)  # noqa: B023

        assert taken

    def test_gets_all_rows(self, features: np.ndarray, plain: np.ndarray) -> None:
        frames = []
        for frame in iter_score(features):
            time.sleep(0.1)
            frames.append(frame)

        assert_totals(frames, plain)


class TestTheEndOfAnIteration:
    def test_closing_it_early_frees_the_replicas(self, features: np.ndarray, lease_folder: Path) -> None:
        scored = iter_score(Endless(features))
        next(scored)
        assert replicas(lease_folder)

        scored.close()

        assert_all_is_free(lease_folder)

    def test_an_exception_in_the_loop_frees_the_replicas(self, features: np.ndarray, lease_folder: Path) -> None:
        def consume() -> None:
            for _ in iter_score(Endless(features)):
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            consume()

        assert_all_is_free(lease_folder)

    def test_a_generator_that_nobody_iterates_over_starts_nothing(self, lease_folder: Path) -> None:
        iter_score("no such file").close()

        assert not replicas(lease_folder)

    def test_what_an_iterable_raises_comes_after_what_was_there_before(
        self, features: np.ndarray, lease_folder: Path
    ) -> None:
        def batches() -> Iterator[np.ndarray]:
            yield features
            raise KeyError("the second file")

        with pytest.raises(KeyError, match="the second file"):
            list(iter_score(batches()))

        assert_all_is_free(lease_folder)

    def test_a_bad_row_ends_it_with_its_number_and_is_told_once(
        self, features: np.ndarray, lease_folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        column = pa.array([None if row == 2_000 else list(features[row]) for row in range(3_000)])

        with pytest.raises(ovray.DataError, match="row 2000"):
            list(iter_score(pa.table({"features": column})))

        assert_all_is_free(lease_folder)
        assert "row 2000" not in caplog.text  # Ray logs errors that nobody has looked at

    @pytest.mark.parametrize(
        ("call", "error"),
        [
            (lambda: iter_score("x", restart=True), ovray.ConfigError),
            (lambda: iter_score("x", rows_per_file=7), ovray.ConfigError),
            (lambda: iter_score("x", hint="FAST"), ovray.ConfigError),
            (lambda: iter_score("x", output="folder"), TypeError),
        ],
    )
    def test_wrong_options_are_told_at_once(self, call: Callable[[], Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            call()
