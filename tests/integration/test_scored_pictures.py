"""Compares scores of picture files with those of plain OpenVINO, which prepares the same pixels in its graph."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray import digits
from ovray.errors import ConfigError, DataError
from tests.integration import models
from tests.integration.scored import TOLERANCE, as_array, scores_in
from tests.pictures import a_picture, pictures_of_many_sizes, prepared_by_openvino, some_pixels

pytestmark = [pytest.mark.ray, pytest.mark.slow]


STEPS: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "scale": (58.395, 57.12, 57.375), "color": "RGB2BGR"}
NAMES = [f"{at:02}.png" for at in range(11)]


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


def score(model: Any, folder: Path, output: Path, **options: Any) -> pa.Table:
    ovray.score(model, folder, output=output, devices="CPU", precision="f32", **options)
    return scores_in(output)


@pytest.mark.parametrize("batch_size", ["auto", 4])
@pytest.mark.parametrize(
    ("model", "side", "output", "values"),
    [(models.SQUEEZENET, 224, "softmaxout_1", 1000), (models.a_picture_model(), 8, "scores", 5)],
)
def test_pictures_of_any_size_score_as_in_plain_openvino(
    model: Any, side: int, output: str, values: int, batch_size: Any, tmp_path: Path
) -> None:
    pictures = pictures_of_many_sizes(tmp_path / "photos", NAMES)
    inferred = prepared_by_openvino(model, pictures, (side, side), STEPS)
    expected = np.stack([one[output].reshape(values) for one in inferred])

    scores = score(
        model, tmp_path / "photos", tmp_path / "scores", resize=(side, side), batch_size=batch_size, **STEPS
    )

    assert scores["path"].to_pylist() == list(pictures)
    assert np.ptp(expected, axis=0).max() > 1000 * TOLERANCE, "the pictures look all alike to this model"
    assert np.abs(as_array(scores[output], values) - expected).max() < TOLERANCE


def test_pictures_of_the_model_s_size_need_no_option(tmp_path: Path) -> None:
    pictures = {
        str(a_picture(tmp_path / "p" / name, some_pixels(8, 8, seed=at))): some_pixels(8, 8, seed=at)
        for at, name in enumerate(NAMES)
    }
    expected = prepared_by_openvino(models.a_picture_model(), pictures, (8, 8), {})

    scores = score(models.a_picture_model(), tmp_path / "p", tmp_path / "scores")

    assert scores.column_names == ["path", "scores", "brightest"]
    assert as_array(scores["brightest"]).tolist() == [one["brightest"][0] for one in expected]
    found = as_array(scores["scores"], 5)
    assert np.abs(found - np.stack([one["scores"][0] for one in expected])).max() < TOLERANCE


def test_pictures_of_other_sizes_are_named_and_so_is_the_way_out(tmp_path: Path) -> None:
    for at, side in enumerate((8, 8, 9)):
        a_picture(tmp_path / "late" / f"{at}.png", some_pixels(side, side))
    a_picture(tmp_path / "early" / "a.png", some_pixels(6, 7))

    with pytest.raises(ConfigError, match=r"early/a\.png, row 0 .* 6x7 .*, 8x8 is wanted: .* with --resize 8x8;"):
        score(models.a_picture_model(), tmp_path / "early", tmp_path / "out")
    with pytest.raises(DataError, match=r"late/2\.png, row 0 .*: cannot be read: it is 9x9 .* with --resize 8x8"):
        score(models.a_picture_model(), tmp_path / "late", tmp_path / "out")


def test_a_corrupt_picture_ends_the_run_with_its_name(tmp_path: Path) -> None:
    for at in range(20):
        a_picture(tmp_path / "p" / f"{at:02}.jpg", some_pixels(8, 8))
    (tmp_path / "p" / "13.jpg").write_bytes((tmp_path / "p" / "13.jpg").read_bytes()[:300])

    with pytest.raises(DataError, match=r"p/13\.jpg, row 0 .*: cannot be read: it is no whole picture: "):
        score(models.a_picture_model(), tmp_path / "p", tmp_path / "out")


@pytest.mark.parametrize("result_format", ["parquet", "csv", "arrow"])
def test_corrupt_pictures_are_put_on_record_beside_results_of_every_format(
    tmp_path: Path, result_format: str
) -> None:
    for at in range(20):
        a_picture(tmp_path / "p" / f"{at:02}.jpg", some_pixels(8, 8))
    for at in (0, 13):
        (tmp_path / "p" / f"{at:02}.jpg").write_bytes((tmp_path / "p" / "19.jpg").read_bytes()[:300])
    out = tmp_path / "out"

    def run() -> ovray.ScoreReport:
        return ovray.score(
            models.a_picture_model(),
            tmp_path / "p",
            output=out,
            format=result_format,
            on_error="record",
            keep="path",
            outputs="brightest",
        )

    first, again = run(), run()

    bad = pq.read_table(out / "_errors")
    assert bad["file"].to_pylist() == [f"{tmp_path}/p/{at:02}.jpg" for at in (0, 13)]
    assert bad["row"].to_pylist() == [0, 0]
    assert set(bad["stage"].to_pylist()) == {"read"}
    assert {path.stem for path in (out / "_errors").iterdir()} <= {path.stem for path in out.glob("part-*")}
    good = pyarrow.dataset.dataset(out, format=result_format).to_table()["path"].to_pylist()
    assert good == [f"{tmp_path}/p/{at:02}.jpg" for at in range(20) if at not in (0, 13)]
    assert (first.errors, again.errors, again.resumed_rows) == (2, 2, 18)


def test_a_function_gets_pictures_as_they_are(tmp_path: Path) -> None:
    pictures = pictures_of_many_sizes(tmp_path / "p", NAMES)

    def corners(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (image,) = columns["image"]
        assert image.dtype == np.uint8
        corner = image[:5, :5].astype(np.float32).mean(axis=(0, 1))
        return {"x": np.array([[*corner, *image.shape]], np.float32)}

    scores = score(
        models.a_half_model(), tmp_path / "p", tmp_path / "scores", preprocess=corners, keep="path", outputs="half"
    )

    expected = [[*pixels[:5, :5].mean(axis=(0, 1)), *pixels.shape] for pixels in pictures.values()]
    assert np.allclose(as_array(scores["half"], 6), expected, rtol=2e-3)


@pytest.mark.parametrize("rows_per_file", [100, 540, 37])
def test_files_end_at_multiples_of_so_many_rows(rows_per_file: int, tmp_path: Path) -> None:
    ovray.score(digits.model_file(), digits.held_out_file(), output=tmp_path, rows_per_file=rows_per_file)

    # Where the machine is slow, some files have less, which is no fault.
    rows = [pq.read_metadata(path).num_rows for path in sorted(tmp_path.glob("part-*"))]
    assert max(rows) <= rows_per_file
    assert {*range(rows_per_file, 540, rows_per_file), 540} <= {*itertools.accumulate(rows)}


@pytest.mark.parametrize("result_format", ["csv", "arrow"])
def test_results_in_other_formats_are_those_of_parquet(result_format: str, tmp_path: Path) -> None:
    for name in ("parquet", result_format):
        ovray.score(
            digits.model_file(),
            digits.held_out_file(),
            output=tmp_path / name,
            keep=["id", "label"],
            precision="f32",
            format=name,
            rows_per_file=100,
        )
    again = ovray.score(
        digits.model_file(),
        digits.held_out_file(),
        output=tmp_path / result_format,
        keep=["id", "label"],
        precision="f32",
        format=result_format,
        rows_per_file=100,
    )

    expected = scores_in(tmp_path / "parquet")
    files = sorted((tmp_path / result_format).glob(f"part-*.{result_format}"))
    assert len(files) == 6
    assert again.resumed_rows == 540
    if result_format == "arrow":
        assert pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files]).equals(expected)
        return
    found = pa.concat_tables([pa.csv.read_csv(file) for file in files])
    assert found.column_names == expected.column_names
    for name in ("id", "label", "digit"):
        assert found[name].equals(expected[name])
    read = np.array([json.loads(cell) for cell in found["probabilities"].to_pylist()])
    assert np.array_equal(read.astype(np.float32), as_array(expected["probabilities"], 10))
