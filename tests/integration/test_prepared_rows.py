"""Compares rows prepared in the graph, and results reduced, with OpenVINO's and NumPy's alone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray.scoring.dataset import DataSet
from ovray.scoring.files import find_files
from ovray.scoring.inspection import inspect_all
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.preparation import GraphSteps
from ovray.scoring.reading import read_sample
from ovray.scoring.row_plan import RowOptions, RowPlan, plan_rows
from tests.integration import models
from tests.integration.scored import TOLERANCE, as_array, plain_openvino, scores_in
from tests.waiting import DEADLINE_S

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = 37
MEAN = (123.675, 116.28, 103.53)
SCALE = (58.395, 57.12, 57.375)


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


def some_pictures(*row_shape: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (rows, *row_shape), dtype=np.uint8)


def a_file(path: Path, pictures: np.ndarray, *, is_flat: bool = False) -> Path:
    """Write pictures as tensors with their shape, or as flat lists, beside an ``id``."""
    flat = pictures.reshape(len(pictures), -1)
    column: Any = pa.FixedSizeListArray.from_arrays(flat.reshape(-1), flat.shape[1])
    if not is_flat:
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pictures))
    pq.write_table(pa.table({"id": np.arange(len(pictures)), "image": column}), path, row_group_size=10)
    return path


def score(model: Any, file: Path, output: Path, **options: Any) -> pa.Table:
    """Score in f32, on whatever CPU: others would compute in bf16 by themselves."""
    ovray.score(model, file, output=output, devices="CPU", precision="f32", **options)
    return scores_in(output)


def planned(model: ov.Model, file: Path, **options: Any) -> tuple[RowPlan, ov.Model]:
    data = DataSet(inspect_all(find_files([file]), rows_wanted=None))
    graph = model.clone()
    sample = read_sample(data, ErrorOptions())
    return plan_rows(graph, data, sample, RowOptions(steps=GraphSteps.parse(**options))), graph


class TestPreparationInTheGraph:
    @pytest.mark.parametrize("is_flat", [False, True])
    def test_layout_colour_mean_and_scale_equal_numpy_s(self, is_flat: bool, tmp_path: Path) -> None:
        pictures = some_pictures(8, 8, 3)
        prepared = (pictures[..., ::-1].astype(np.float32) - np.float32(MEAN)) / np.float32(SCALE)
        expected = plain_openvino(
            models.a_picture_model(), {"image": np.ascontiguousarray(prepared.transpose(0, 3, 1, 2))}
        )

        scores = score(
            models.a_picture_model(),
            a_file(tmp_path / "pictures.parquet", pictures, is_flat=is_flat),
            tmp_path / "scores",
            layout="NHWC",
            color="BGR2RGB",
            mean=MEAN,
            scale=SCALE,
        )

        assert scores["id"].to_pylist() == list(range(ROWS))
        assert np.abs(as_array(scores["scores"], 5) - expected["scores"]).max() < TOLERANCE
        assert np.abs(as_array(scores["brightest"]) - expected["brightest"]).max() < TOLERANCE

    def test_resizing_equals_that_of_plain_openvino_with_the_same_steps(self, tmp_path: Path) -> None:
        pictures = some_pictures(60, 100, 3, rows=5)
        model = ov.Core().read_model(models.SQUEEZENET)
        steps = ov.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_shape([1, 60, 100, 3]).set_layout(
            ov.Layout("NHWC")
        )
        steps.input().model().set_layout(ov.Layout("NCHW"))
        algorithm = ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR
        steps.input().preprocess().convert_element_type(ov.Type.f32).resize(algorithm).mean(list(MEAN))
        expected = plain_openvino(steps.build(), {"data_0": pictures}, batch=1)

        scores = score(
            models.SQUEEZENET,
            a_file(tmp_path / "pictures.parquet", pictures),
            tmp_path / "scores",
            input="image",
            layout="NHWC",
            resize="224x224",
            mean="123.675,116.28,103.53",
        )

        found = as_array(scores["softmaxout_1"], 1000)
        assert np.abs(found - expected["softmaxout_1"].reshape(5, 1000)).max() < TOLERANCE

    def test_features_are_brought_to_scale(self, tmp_path: Path) -> None:
        values = np.random.default_rng(2).standard_normal((ROWS, models.FEATURES)).astype(np.float32)
        mean, scale = values.mean(axis=0), values.std(axis=0)
        pq.write_table(pa.table({"features": list(values)}), tmp_path / "rows.parquet")
        expected = plain_openvino(models.a_perceptron(), {"features": (values - mean) / scale})

        scores = score(
            models.a_perceptron(),
            tmp_path / "rows.parquet",
            tmp_path / "scores",
            mean=mean.tolist(),
            scale=scale.tolist(),
        )

        assert np.abs(as_array(scores["logits"], 3) - expected["logits"]).max() < TOLERANCE

    def test_bytes_stay_bytes_up_to_the_graph_and_floats_stay_floats(self, tmp_path: Path) -> None:
        of_bytes = a_file(tmp_path / "bytes.parquet", some_pictures(3, 8, 8))
        of_floats = a_file(tmp_path / "floats.parquet", some_pictures(3, 8, 8).astype(np.float32))

        plain, _ = planned(models.a_picture_model(), of_bytes)
        scaled, graph = planned(models.a_picture_model(), of_bytes, scale=255)
        floats, _ = planned(models.a_picture_model(), of_floats, scale=255)

        kinds = [plan.bindings[0].element_type for plan in (plain, scaled, floats)]
        assert kinds == ["f32", "u8", "f32"]
        assert graph.inputs[0].get_element_type() == ov.Type.u8

    def test_pictures_whose_size_is_unknown_cannot_be_resized(self, tmp_path: Path) -> None:
        file = a_file(tmp_path / "flat.parquet", some_pictures(10, 10, 3), is_flat=True)

        with pytest.raises(ovray.ConfigError, match=re.escape("f32[?,?,?,3]")):
            planned(models.a_picture_model(), file, layout="NHWC", resize="8x8")


class TestReducedResults:
    @pytest.fixture
    def pictures(self) -> np.ndarray:
        return some_pictures(3, 8, 8)

    @pytest.fixture
    def file(self, pictures: np.ndarray, tmp_path: Path) -> Path:
        return a_file(tmp_path / "pictures.parquet", pictures)

    @pytest.fixture
    def expected(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        return plain_openvino(models.a_picture_model(), {"image": pictures.astype(np.float32)})

    def test_the_best_classes_with_scores_and_labels(
        self, file: Path, expected: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")

        scores = score(
            models.a_picture_model(),
            file,
            tmp_path / "scores",
            top_k=2,
            labels=tmp_path / "labels.txt",
            batch_size=4,
        )

        classes = np.argsort(-expected["scores"], axis=1, kind="stable")[:, :2]
        assert scores.schema.names == ["id", "scores_classes", "scores_labels", "scores_scores", "brightest"]
        assert scores["scores_classes"].to_pylist() == classes.tolist()
        assert scores["scores_labels"].to_pylist() == [["abcde"[one] for one in row] for row in classes]
        best = np.take_along_axis(expected["scores"], classes, axis=1)
        assert np.abs(as_array(scores["scores_scores"], 2) - best).max() < TOLERANCE

    def test_the_best_class_of_the_outputs_wanted(
        self, file: Path, expected: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        scores = score(models.a_picture_model(), file, tmp_path / "scores", outputs=["scores"], argmax=True)

        assert scores.schema.names == ["id", "scores_class"]
        assert scores.schema.field("scores_class").type == pa.int32()
        assert scores["scores_class"].to_pylist() == expected["scores"].argmax(axis=1).tolist()

    def test_half_precision(self, file: Path, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
        scores = score(models.a_picture_model(), file, tmp_path / "scores", dtype="float16")

        assert scores.schema.field("scores").type == pa.list_(pa.float16(), 5)
        assert scores.schema.field("brightest").type == pa.float16()
        # No further than the distance between two neighbours of half precision.
        assert np.allclose(as_array(scores["scores"], 5), expected["scores"], rtol=1e-3, atol=1e-4)
        assert as_array(scores["brightest"]).tolist() == expected["brightest"].tolist()

    def test_a_column_with_the_name_of_a_result_is_refused_before_anything_starts(self, tmp_path: Path) -> None:
        table = pa.table({"scores_class": range(3), "image": some_pictures(192, rows=3).tolist()})
        pq.write_table(table, tmp_path / "rows.parquet")

        with pytest.raises(ovray.ConfigError, match="'scores_class' has the name of"):
            score(models.a_picture_model(), tmp_path / "rows.parquet", tmp_path / "scores", argmax=True)
        assert not (tmp_path / "scores").exists()


def halves_to_picture(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes a picture of its upper and lower half, each of which is a column."""
    assert batch["upper"].shape == (len(batch["upper"]), 3, 4, 8)
    return {"image": np.concatenate([batch["upper"], batch["lower"]], axis=2)}


class TestFunctions:
    @pytest.fixture
    def pictures(self) -> np.ndarray:
        return some_pictures(3, 8, 8)

    @pytest.fixture
    def file(self, pictures: np.ndarray, tmp_path: Path) -> Path:
        halves = {"upper": pictures[:, :, :4], "lower": pictures[:, :, 4:]}
        columns = {
            name: pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(half))
            for name, half in halves.items()
        }
        path = tmp_path / "halves.parquet"
        pq.write_table(pa.table({"id": np.arange(ROWS), **columns}), path, row_group_size=10)
        return path

    def test_inputs_are_made_of_columns_and_then_prepared_in_the_graph(
        self, file: Path, pictures: np.ndarray, tmp_path: Path
    ) -> None:
        expected = plain_openvino(models.a_picture_model(), {"image": pictures.astype(np.float32) / 255})

        scores = score(
            models.a_picture_model(),
            file,
            tmp_path / "scores",
            input=["upper", "lower"],
            preprocess=halves_to_picture,
            scale=255,
            batch_size=4,
        )

        assert scores.schema.names == ["id", "scores", "brightest"]
        assert np.abs(as_array(scores["scores"], 5) - expected["scores"]).max() < TOLERANCE

    def test_results_are_made_of_the_outputs_wanted(
        self, file: Path, pictures: np.ndarray, tmp_path: Path
    ) -> None:
        expected = plain_openvino(models.a_picture_model(), {"image": pictures.astype(np.float32)})

        def finish(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            assert list(batch) == ["scores"]
            order = batch["scores"].argsort(axis=1)
            return {"worst": order[:, 0], "name": np.array(list("abcde"), dtype=object)[order[:, -1]]}

        scores = score(
            models.a_picture_model(),
            file,
            tmp_path / "scores",
            input=["upper", "lower"],
            preprocess=halves_to_picture,
            outputs=["scores"],
            postprocess=finish,
        )

        assert scores.schema.names == ["id", "worst", "name"]
        assert scores["worst"].to_pylist() == expected["scores"].argmin(axis=1).tolist()
        assert scores["name"].to_pylist() == ["abcde"[one] for one in expected["scores"].argmax(axis=1)]

    def test_a_function_that_fails_ends_the_run_with_the_file_the_row_and_its_name(
        self, file: Path, tmp_path: Path
    ) -> None:
        def fails_later(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if 25 in batch["id"]:
                raise ValueError("a picture of nothing")
            return halves_to_picture(batch)

        with pytest.raises(ovray.DataError) as caught:
            score(models.a_picture_model(), file, tmp_path / "scores", preprocess=fails_later)

        text = str(caught.value)
        assert re.search(r"halves\.parquet, row 25 .*fails_later failed with ValueError: a picture of", text)

    def test_the_command_takes_every_option(self, file: Path, pictures: np.ndarray, tmp_path: Path) -> None:
        (tmp_path / "mine.py").write_text(
            "import numpy as np\n"
            "def join(batch):\n"
            "    return {'image': np.concatenate([batch['upper'], batch['lower']], axis=2)}\n"
        )
        (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
        models.save(models.a_picture_model(), tmp_path / "model.xml")
        prepared = (pictures[:, ::-1].astype(np.float32) - 3) / np.float32([1, 2, 4]).reshape(3, 1, 1)
        expected = plain_openvino(models.a_picture_model(), {"image": prepared})

        done = subprocess.run(
            [
                *(sys.executable, "-m", "ovray.cli.main", "score", "model.xml", file.name, "--output", "scores"),
                *(
                    "--quiet",
                    "--devices",
                    "CPU",
                    "--precision",
                    "f32",
                    "--input",
                    "*er",
                    "--preprocess",
                    "mine:join",
                ),
                *("--layout", "NCHW", "--resize", "8x8", "--color", "BGR2RGB", "--mean", "3", "--scale", "1,2,4"),
                *(
                    "--outputs",
                    "scores",
                    "--top-k",
                    "2",
                    "--labels",
                    "labels.txt",
                    "--dtype",
                    "float16",
                    "--quiet",
                ),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(ovray.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

        assert done.returncode == 0, done.stderr
        scores = scores_in(tmp_path / "scores")
        classes = np.argsort(-expected["scores"], axis=1, kind="stable")[:, :2]
        assert scores.schema.names == ["id", "scores_classes", "scores_labels", "scores_scores"]
        assert scores["scores_classes"].to_pylist() == classes.tolist()
        assert scores.schema.field("scores_scores").type == pa.list_(pa.float16(), 2)
