"""Scores the packaged digits from files of every format through the real Ray: the results are those of Parquet."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray import digits
from tests.data_builders import a_parquet_file, a_text_file, an_arrow_file, as_json_lines

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.mark.parametrize("ending", ["jsonl", "arrow", "arrows", "npz", "parquet"])
def test_folders_of_any_format_score_as_one_parquet_file_does(tmp_path: Path, ending: str) -> None:
    # given: the held-out images in three folders, which are to become a column
    table = pq.read_table(digits.held_out_file())
    for number, (start, stop) in enumerate([(0, 100), (100, 101), (101, table.num_rows)]):
        folder = tmp_path / "data" / f"third={number}"
        folder.mkdir(parents=True)
        write(folder / f"part.{ending}", table.slice(start, stop - start))

    # when
    options = {"input": digits.PIXELS_COLUMN, "precision": "f32", "devices": "CPU"}
    report = ovray.score(digits.model_file(), tmp_path / "data", output=tmp_path / "scores", **options)
    ovray.score(digits.model_file(), digits.held_out_file(), output=tmp_path / "expected", **options)

    # then
    scores, expected = pq.read_table(tmp_path / "scores"), pq.read_table(tmp_path / "expected")
    assert report.rows == table.num_rows
    assert scores["third"].to_pylist() == [0] * 100 + [1] + [2] * (table.num_rows - 101)
    for name in (digits.ID_COLUMN, digits.DIGIT_COLUMN):
        assert scores[name].to_pylist() == expected[name].to_pylist()
    probabilities = (of[digits.PROBABILITIES_COLUMN].combine_chunks().flatten() for of in (scores, expected))
    np.testing.assert_allclose(*(np.asarray(values) for values in probabilities), atol=1e-6)


def test_an_array_of_numpy_scores_as_the_column_that_it_is_made_of(tmp_path: Path) -> None:
    held_out = pq.read_table(digits.held_out_file())
    np.save(tmp_path / "pixels.npy", np.array(held_out[digits.PIXELS_COLUMN].to_pylist(), np.float32))
    options = {"devices": "CPU", "precision": "f32"}

    scores = ovray.score(digits.model_file(), tmp_path / "pixels.npy", **options)

    expected = ovray.score(digits.model_file(), digits.held_out_file(), input=digits.PIXELS_COLUMN, **options)
    assert scores[digits.DIGIT_COLUMN].tolist() == expected[digits.DIGIT_COLUMN].tolist()
    assert "array" not in scores.columns


def write(path: Path, table: pa.Table) -> None:
    """Write a table in the format that the name's ending says."""
    if path.suffix == ".jsonl":
        a_text_file(path, as_json_lines(table))
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: np.array(table[name].to_pylist()) for name in table.column_names})
    elif path.suffix == ".parquet":
        a_parquet_file(path, table)
    else:
        an_arrow_file(path, table, rows_per_batch=64)
