"""Scores Ray Data sets: blocks go from node to node, never through the driver, and outlive the replicas.

Two Ray nodes: one where the driver is and that has no CPUs, and one where all the work and all the blocks are.
"""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from ray._private.state import available_resources_per_node, total_resources_per_node
from ray.cluster_utils import Cluster

import ovray
from tests.integration import models
from tests.integration.scored import TOLERANCE, parts_of, plain_openvino, scores_in
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

#: 96 MiB of rows in blocks of 12 MiB, and as much again in results.
ROWS, WIDTH, BLOCKS = 3_072, 8 * 1024, 8

WORKERS = "{role=worker}/CPU"

#: What may come to the driver: the first rows (16 of 32 KiB), answers, and small change.
SMALL_CHANGE_BYTES = 2 * 2**20


@pytest.fixture(scope="module", autouse=True)
def _two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "labels": {"role": "driver"}},
    )
    try:
        nodes.add_node(num_cpus=2, labels={"role": "worker"}, object_store_memory=600 * 2**20)
        ray.init(address=nodes.address, log_to_driver=False)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        # Blocks in the order in which they are made, for comparison.
        context.execution_options.preserve_order = True
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()
        patch.undo()


def rows_of(first: int, count: int) -> np.ndarray:
    return ((np.arange(first, first + count)[:, None] % 7 + np.arange(WIDTH)[None, :] % 5) / 8).astype(np.float32)


def a_dataset(*, rows: int = ROWS, blocks: int = BLOCKS) -> ray.data.Dataset:
    """Return a set that is not computed yet, whose own tasks need CPUs."""

    def wide(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"id": batch["id"], "x": rows_of(int(batch["id"][0]), len(batch["id"]))}

    return ray.data.range(rows, override_num_blocks=blocks).map_batches(wide, batch_size=None)


def score(inputs: Any, **options: Any) -> Any:
    """Have each value doubled: as much comes out as goes in."""
    return ovray.score(models.a_wide_double(WIDTH), inputs, **{"devices": WORKERS, "precision": "f32", **options})


def node(role: str) -> dict[str, Any]:
    (found,) = [one for one in ray.nodes() if one["Alive"] and one["Labels"].get("role") == role]
    return dict(found)


def primary_bytes(role: str) -> int:
    """Return what the object store of a node holds that was made there."""
    id = node(role)["NodeID"]
    there, free = total_resources_per_node()[id], available_resources_per_node()[id]
    return int(there["object_store_memory"] - free.get("object_store_memory", 0.0))


def received_bytes(role: str) -> int:
    """Return what the object store of a node has ever received from other nodes, up to reuse of its memory.

    A node's raylet writes such objects into shared memory, and that stays its own when an object is deleted.
    """
    socket = node(role)["ObjectStoreSocketName"]
    (raylet,) = [one for one in psutil.process_iter() if is_raylet_of(one, socket)]
    status = Path(f"/proc/{raylet.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssShmem"))


def is_raylet_of(process: psutil.Process, socket: str) -> bool:
    try:
        return process.name() == "raylet" and any(word.endswith(f"={socket}") for word in process.cmdline())
    except psutil.Error:
        return False


class TestBlocksStayWhereTheyAre:
    def test_none_comes_to_the_node_of_the_driver(self) -> None:
        before, rss_before = received_bytes("driver"), psutil.Process().memory_info().rss

        scored = score(a_dataset())

        assert wait_until(lambda: primary_bytes("worker") > ROWS * WIDTH * 4)  # all results are there
        assert received_bytes("driver") - before < SMALL_CHANGE_BYTES
        assert psutil.Process().memory_info().rss - rss_before < ROWS * WIDTH * 4
        # The measure measures: whoever asks for a block has it brought.
        blocks = [entry for bundle in scored.iter_internal_ref_bundles() for entry in bundle.blocks]
        table = ray.get(max(blocks, key=lambda entry: entry.metadata.size_bytes).ref)
        assert received_bytes("driver") - before > table.nbytes > SMALL_CHANGE_BYTES

    def test_results_outlive_the_replicas_and_the_blocks_that_they_are_of(self) -> None:
        scored = score(a_dataset(rows=64, blocks=4))

        assert wait_until(lambda: ray.available_resources().get("CPU") == 2)  # the replicas are gone
        gc.collect()
        sums = scored.map_batches(lambda batch: {"id": batch["id"], "sum": [sum(row) for row in batch["double"]]})
        found = sums.to_pandas().sort_values("id")
        assert found["id"].tolist() == list(range(64))
        assert np.allclose(found["sum"], rows_of(0, 64).sum(axis=1) * 2, rtol=1e-4)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((1_003, models.FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(features: np.ndarray) -> dict[str, np.ndarray]:
    return plain_openvino(models.a_perceptron(), {"features": features})


class TestResultsEqualPlainOpenVINO:
    def near(self, scored: ray.data.Dataset, plain: dict[str, np.ndarray]) -> bool:
        found = scored.to_pandas()
        logits = np.stack(found["logits"].to_numpy())
        return bool(
            np.abs(found["total"].to_numpy(np.float32) - plain["total"][:, 0]).max() < TOLERANCE
            and np.abs(logits.astype(np.float32) - plain["logits"]).max() < TOLERANCE
        )

    def perceptron(self, inputs: Any, **options: Any) -> Any:
        return ovray.score(models.a_perceptron(), inputs, devices=WORKERS, precision="f32", **options)

    def test_of_ray_datas_tensors(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        assert self.near(self.perceptron(ray.data.from_numpy(features)), plain)

    def test_of_blocks_of_pandas(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        frames = [
            pd.DataFrame({"id": range(start, stop), "features": list(features[start:stop])})
            for start, stop in ((0, 400), (400, 401), (401, 1_003))
        ]

        scored = self.perceptron(ray.data.from_pandas(frames))

        assert scored.schema().names == ["id", "logits", "total"]
        assert scored.to_pandas()["id"].tolist() == list(range(1_003))
        assert self.near(scored, plain)

    def test_of_files_that_ray_data_reads(
        self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        column = pa.FixedSizeListArray.from_arrays(features.reshape(-1), models.FEATURES)
        pq.write_table(pa.table({"features": column}), tmp_path / "a.parquet", row_group_size=100)

        assert self.near(self.perceptron(ray.data.read_parquet(str(tmp_path / "a.parquet"))), plain)

    def test_of_some_empty_blocks_and_some_with_nulls_alone(
        self, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        column = pa.FixedSizeListArray.from_arrays(features.reshape(-1), models.FEATURES)
        note = pa.array(["a", None] * 500 + ["b"] * 3)
        table = pa.table({"features": column, "note": note})
        nulls = table.slice(0, 400).set_column(1, "note", pa.nulls(400))

        scored = self.perceptron(ray.data.from_arrow([nulls, table.slice(0, 0), table.slice(400)]))

        assert self.near(scored, plain)
        assert scored.to_pandas()["note"].isna().sum() == 400 + 300

    def test_the_first_rows_only(self, features: np.ndarray) -> None:
        assert self.perceptron(ray.data.from_numpy(features), limit=10).count() == 10

    def test_into_a_folder(self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        data = ray.data.from_numpy(features)

        report = self.perceptron(data, output=tmp_path / "o")
        with pytest.raises(ovray.ConfigError, match="the Dataset cannot be recognised"):
            self.perceptron(data, output=tmp_path / "o")

        assert report.rows == 1_003
        assert parts_of(tmp_path / "o")
        assert np.abs(scores_in(tmp_path / "o")["total"].to_numpy() - plain["total"][:, 0]).max() < TOLERANCE

    def test_one_frame_after_the_other(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        data = ray.data.from_numpy(features)

        frames = list(ovray.iter_score(models.a_perceptron(), data, devices=WORKERS, precision="f32"))

        together = pd.concat(frames)
        assert together.index.tolist() == list(range(1_003))
        assert np.abs(together["total"].to_numpy() - plain["total"][:, 0]).max() < TOLERANCE


class TestRoomForItsOwnTasks:
    def test_a_set_whose_tasks_find_no_cpu_is_refused_instead_of_waiting_for_ever(self) -> None:
        @ray.remote(num_cpus=2)
        class Holder:
            def is_there(self) -> bool:
                return True

        holder = Holder.remote()
        assert ray.get(holder.is_there.remote(), timeout=60)
        assert wait_until(lambda: not ray.available_resources().get("CPU"))

        with pytest.raises(ovray.ConfigError, match=r"need a CPU, but others hold all that Ray has \(2\)"):
            score(a_dataset(), lease_timeout_s=0.5)

        ray.kill(holder)
        assert wait_until(lambda: ray.available_resources().get("CPU") == 2)

    def test_what_would_have_to_run_beside_the_replicas_is_refused(self) -> None:
        with pytest.raises(ovray.ConfigError, match="give the Dataset itself"):
            score(a_dataset().iter_batches())
        with pytest.raises(ovray.ConfigError, match="give the Dataset itself"):
            score(a_dataset().iterator())

    def test_a_set_without_rows_is_refused(self) -> None:
        with pytest.raises(ovray.ConfigError, match="the Dataset has no rows"):
            score(ray.data.range(10).filter(lambda row: row["id"] < 0))
