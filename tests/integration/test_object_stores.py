"""Scores files of an object store into an object store, over HTTP and the S3 protocol: rows, restarts, bad rows.

The store is moto's server, a process of its own.  What holds on disks by locks and renames holds there by single
PUTs and by looking at the fence before each.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

import ovray
from ovray import digits
from tests.integration import models
from tests.integration.commands import Command, started
from tests.integration.scored import TOLERANCE, plain_openvino
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = 3_000

#: So slow that a job of a quarter of an hour is under way when something happens to it; a part for each row.
SLOWLY = ("--devices", "SIM*2?ms=500", "--batch-size", "1", "--commit-every", "0.2")

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Is a bucket of a store that listens here."""

    name: str
    port: int

    def url(self, key: str) -> str:
        """Return what a person would type."""
        return f"s3://{self.name}/{key}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"

    def names(self, folder: str) -> list[str]:
        """Return the names within a folder, in order."""
        found = self.filesystem.get_file_info(pafs.FileSelector(f"{self.name}/{folder}", allow_not_found=True))
        return sorted(info.base_name for info in found)

    def parts(self, folder: str) -> list[str]:
        return [name for name in self.names(folder) if name.startswith("part-")]

    def rows(self, folder: str) -> pa.Table:
        """Return the rows of all parts, in the order of their names."""
        tables = [
            pq.read_table(f"{self.name}/{folder}/{name}", filesystem=self.filesystem)
            for name in self.parts(folder)
        ]
        return pa.concat_tables(tables)

    def write(self, key: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(f"{self.name}/{key}") as stream:
            stream.write(content)

    @property
    def filesystem(self) -> pafs.FileSystem:
        return pafs.FileSystem.from_uri(self.url(""))[0]


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    """Gives the port of a store, and credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _CREDENTIALS.items():
            patch.setenv(name, value)
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()
            server.wait()


_SERVE = """
import threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""


@pytest.fixture
def bucket(store: int, request: pytest.FixtureRequest) -> Bucket:
    name = f"bucket-{abs(hash(request.node.name))}"
    made = pafs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{store}", scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    made.create_dir(name)
    return Bucket(name=name, port=store)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    features = np.random.default_rng(3).standard_normal((ROWS, models.FEATURES)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(features.reshape(-1), models.FEATURES)
    return pa.table({"id": np.arange(ROWS), "features": column})


@pytest.fixture
def files(bucket: Bucket, table: pa.Table) -> str:
    """Puts the rows into two files below a partitioned folder; gives its URL."""
    for number, (start, stop) in enumerate([(0, 1_234), (1_234, ROWS)]):
        key = f"{bucket.name}/data/half={number}/rows.parquet"
        pq.write_table(table.slice(start, stop - start), key, filesystem=bucket.filesystem, row_group_size=500)
    return bucket.url("data")


@pytest.fixture(scope="module", autouse=True)
def address(store: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Gives a Ray that knows the store's credentials, and that outlives the drivers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


class TestRows:
    def test_equal_those_of_plain_openvino(self, bucket: Bucket, files: str, table: pa.Table) -> None:
        model = models.a_perceptron()

        report = ovray.score(
            model, files, output=bucket.url("scores"), devices="CPU", precision="f32", outputs="total"
        )

        scores = bucket.rows("scores")
        features = np.array(table["features"].to_pylist(), np.float32)
        plain = plain_openvino(models.a_perceptron(), {"features": features})["total"][:, 0]
        assert report.rows == ROWS
        assert scores["id"].to_pylist() == list(range(ROWS))
        assert scores["half"].to_pylist() == [0] * 1_234 + [1] * (ROWS - 1_234)
        assert np.abs(scores["total"].to_numpy() - plain).max() < TOLERANCE
        others = [name for name in bucket.names("scores") if not name.startswith("part-")]
        assert others == ["_SUCCESS", "_ovray.json"]

    def test_of_a_glob_of_csv_come_back_in_memory(self, bucket: Bucket) -> None:
        pixels = pq.read_table(digits.held_out_file()).slice(0, 20)
        columns = {f"pixel_{at:02}": [row[at] for row in pixels["pixels"].to_pylist()] for at in range(64)}
        text = pa.BufferOutputStream()
        pa.csv.write_csv(pa.table(columns), text)
        bucket.write("tables/a b.csv", text.getvalue().to_pybytes())

        scores = ovray.score(digits.model_file(), bucket.url("tables/*.csv"), input="pixel_*", devices="CPU")

        expected = ovray.score(digits.model_file(), pixels.to_pandas(), input="pixels", devices="CPU")
        assert scores["digit"].tolist() == expected["digit"].tolist()

    def test_of_pictures(self, bucket: Bucket, tmp_path: Path) -> None:
        chance = np.random.default_rng(1)
        for number in range(3):
            local = tmp_path / f"{number}.png"
            Image.fromarray(chance.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(local)
            bucket.write(f"pictures/{number}.png", local.read_bytes())

        options = {"resize": "224x224", "devices": "CPU", "argmax": True}
        scores = ovray.score(models.SQUEEZENET, bucket.url("pictures"), **options)

        expected = ovray.score(models.SQUEEZENET, tmp_path, **options)
        (found,) = [name for name in scores.columns if name.endswith("_class")]
        assert scores[found].tolist() == expected[found].tolist()

    def test_that_are_bad_are_put_on_record(self, bucket: Bucket, table: pa.Table) -> None:
        rows = table.slice(0, 50).to_pylist()
        rows[7]["features"] = None
        schema = pa.schema({"id": pa.int64(), "features": pa.list_(pa.float32())})
        pq.write_table(
            pa.Table.from_pylist(rows, schema), f"{bucket.name}/bad.parquet", filesystem=bucket.filesystem
        )

        report = ovray.score(
            models.a_perceptron(),
            bucket.url("bad.parquet"),
            output=bucket.url("scores"),
            devices="CPU",
            on_error="record",
        )

        assert (report.rows, report.errors) == (49, 1)
        assert bucket.rows("scores")["id"].to_pylist() == [row for row in range(50) if row != 7]
        (errors,) = bucket.names("scores/_errors")
        record = pq.read_table(f"{bucket.name}/scores/_errors/{errors}", filesystem=bucket.filesystem)
        assert record.select(["row", "stage"]).to_pylist() == [{"row": 7, "stage": "prepare"}]


@pytest.fixture
def job(bucket: Bucket, files: str, address: str, tmp_path: Path) -> list[str]:
    """Gives the words of a command that scores files of the store into the store."""
    model = models.save(models.a_perceptron(), tmp_path / "model.xml")
    return ["score", str(model), files, "--output", bucket.url("scores"), "--address", address, "--json"]


class TestEachRowIsThereOnce:
    def test_after_a_kill_the_same_command_carries_on_and_then_does_nothing(
        self, bucket: Bucket, job: list[str], tmp_path: Path
    ) -> None:
        with started(tmp_path, *job, *SLOWLY) as killed:
            assert wait_until(lambda: len(bucket.parts("scores")) >= 3 or is_over(killed))
            killed.process.send_signal(signal.SIGKILL)
            assert killed.wait() == -signal.SIGKILL

        with started(tmp_path, *job, "--devices", "SIM*2?ms=0.1") as carried_on:
            assert carried_on.wait() == 0, carried_on.stderr
        with started(tmp_path, *job) as again:
            assert again.wait() == 0, again.stderr

        assert 0 < carried_on.json()["resumed_rows"] < ROWS
        assert again.json()["resumed_rows"] == ROWS
        assert bucket.rows("scores")["id"].to_pylist() == list(range(ROWS))

    def test_also_where_a_later_driver_takes_the_folder_over(
        self, bucket: Bucket, job: list[str], tmp_path: Path
    ) -> None:
        with started(tmp_path, *job, *SLOWLY) as earlier:
            assert wait_until(lambda: len(bucket.parts("scores")) >= 3 or is_over(earlier))
            with started(tmp_path, *job, "--devices", "SIM*2?ms=0.1") as later:
                assert later.wait() == 0, later.stderr
            assert earlier.wait() == 1

        assert "was taken over by another run" in earlier.stderr
        assert bucket.rows("scores")["id"].to_pylist() == list(range(ROWS))

    def test_another_job_is_refused_until_it_is_told_to_begin_anew(
        self, bucket: Bucket, job: list[str], tmp_path: Path
    ) -> None:
        quickly = (*job, "--devices", "SIM?ms=0.1")
        with started(tmp_path, *quickly) as first:
            assert first.wait() == 0, first.stderr

        with started(tmp_path, *quickly, "--limit", "100") as refused:
            assert refused.wait() == 2
        with started(tmp_path, *quickly, "--limit", "100", "--restart") as anew:
            assert anew.wait() == 0, anew.stderr

        assert "--limit" in refused.stderr
        assert bucket.rows("scores")["id"].to_pylist() == list(range(100))


def test_a_store_that_does_not_answer_is_told_in_one_line(store: int, tmp_path: Path) -> None:
    nowhere = Bucket(name="no-such-bucket", port=store)
    model = models.save(models.a_perceptron(), tmp_path / "model.xml")

    with started(tmp_path, "score", model, nowhere.url("data"), "--output", tmp_path / "scores") as command:
        assert command.wait() == 2

    assert len(command.stderr.strip().splitlines()) == 1
    assert "no-such-bucket" in command.stderr


def is_over(command: Command) -> bool:
    return command.process.poll() is not None
