"""Scores rows in memory through the real Ray: results equal plain OpenVINO's and have the shape of the rows."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray

import ovray
from ovray.replica.actor import WORK_THREADS
from ovray.scoring.row_plan import MAX_CHUNK_BYTES
from ovray.scoring.user_functions import Arrays
from tests.integration import models
from tests.integration.scored import TOLERANCE, as_array, plain_openvino, scores_in
from tests.waiting import DEADLINE_S

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROWS = 3_001
IN_F32 = {"devices": "CPU", "precision": "f32"}


@pytest.fixture(scope="module", autouse=True)
def _a_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OVRAY_LEASE_DIR", str(tmp_path_factory.mktemp("leases")))
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((ROWS, models.FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(features: np.ndarray) -> dict[str, np.ndarray]:
    return plain_openvino(models.a_perceptron(), {"features": features})


def score(inputs: Any, **options: Any) -> Any:
    return ovray.score(models.a_perceptron(), inputs, **{**IN_F32, **options})


def a_table(features: np.ndarray) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(features.reshape(-1), models.FEATURES)
    return pa.table({"id": np.arange(len(features)), "features": column})


def assert_near(found: Any, wanted: np.ndarray) -> None:
    assert np.abs(np.asarray(found, dtype=np.float32) - wanted).max() < TOLERANCE


class TestResultsHaveTheShapeOfTheRows:
    def test_a_data_frame_gives_a_data_frame_with_its_index(
        self, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        frame = pd.DataFrame(features).assign(id=np.arange(ROWS)).set_index(np.arange(ROWS)[::-1] * 7)
        before = frame.copy()

        scored = score(frame, input="[0-9]*")

        pd.testing.assert_frame_equal(frame, before)
        assert list(scored.columns) == ["id", "logits", "total"]
        assert scored.index.equals(frame.index)
        assert scored["id"].equals(frame["id"])
        assert_near(scored["total"], plain["total"][:, 0])
        assert_near(np.stack(scored["logits"]), plain["logits"])

    def test_an_array_gives_arrays_of_the_models_shapes(
        self, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        before = features.copy()

        scored = score(features)
        total = score(features, outputs="total")

        assert np.array_equal(features, before)
        assert list(scored) == ["logits", "total"]
        assert scored["total"].shape == (ROWS, 1) == total.shape
        assert_near(scored["logits"], plain["logits"])
        assert_near(total, plain["total"])

    def test_a_dict_of_arrays_gives_a_dict(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        scored = score({"id": np.arange(ROWS), "features": features}, outputs="logits")

        assert list(scored) == ["id", "logits"]
        assert np.array_equal(scored["id"], np.arange(ROWS))
        assert_near(scored["logits"], plain["logits"])

    def test_an_arrow_table_gives_an_arrow_table(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        scored = score(a_table(features))

        assert isinstance(scored, pa.Table)
        assert scored.schema.names == ["id", "logits", "total"]
        assert scored["id"].to_pylist() == list(range(ROWS))
        assert_near(as_array(scored["logits"], 3), plain["logits"])

    def test_a_record_batch_gives_a_record_batch(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        scored = score(a_table(features).to_batches()[0], outputs="total")

        assert isinstance(scored, pa.RecordBatch)
        assert_near(scored.column("total"), plain["total"][:, 0])

    def test_files_give_a_data_frame(
        self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        for number, part in enumerate((a_table(features).slice(0, 1_000), a_table(features).slice(1_000))):
            pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=333)

        scored = score([tmp_path / "0.parquet", tmp_path / "1.parquet"])

        assert scored.index.equals(pd.RangeIndex(ROWS))
        assert scored["id"].tolist() == list(range(ROWS))
        assert_near(scored["total"], plain["total"][:, 0])

    def test_numbers_of_one_row_give_one_row(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        assert_near(score(features[:1], outputs="total"), plain["total"][:1])

    def test_the_first_rows_only(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        assert_near(score(features, outputs="total", limit=17), plain["total"][:17])

    def test_an_output_of_open_length_gives_an_array_for_each_row(self) -> None:
        rows = np.array([[0, 1, 0, 2, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], np.float32)

        found = ovray.score(models.a_positions_model(), rows, **IN_F32)

        assert [row.tolist() for row in found] == [[1, 3], [], [0, 1, 2, 3, 4, 5]]

    def test_text_goes_in_and_out(self) -> None:
        words = np.array(["a", "Straße", ""], dtype=object)

        assert ovray.score(models.an_echo_model(), words, **IN_F32).tolist() == words.tolist()

    def test_several_inputs_of_a_frame_whose_cells_are_arrays(self) -> None:
        grid = np.random.default_rng(6).standard_normal((50, 2, 3)).astype(np.float32)
        factor = np.arange(50, dtype=np.float32)
        frame = pd.DataFrame({"grid": list(grid), "factor": factor, "odd": [{1}] * 50})

        scored = ovray.score(models.a_pair_model(), frame, **IN_F32)

        plain = plain_openvino(models.a_pair_model(), {"grid": grid, "factor": factor})
        assert scored["odd"].tolist() == [{1}] * 50
        assert_near(np.stack(scored["scaled"]).reshape(50, 2, 3), plain["scaled"])
        assert scored["best"].tolist() == plain["best"].tolist()


class TestOptionsMeanTheSameAsForFiles:
    def test_the_best_classes(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        best = score(features, outputs="logits", argmax=True)

        assert best.tolist() == plain["logits"].argmax(axis=1).tolist()

    def test_functions_of_the_caller(self, features: np.ndarray, plain: dict[str, np.ndarray]) -> None:
        def halve(batch: Arrays) -> Arrays:
            return {"features": batch["array"] / 2}

        def double(outputs: Arrays) -> Arrays:
            return {"twice": outputs["total"] * 2}

        found = score(features * 2, preprocess=halve, postprocess=double)

        assert isinstance(found, np.ndarray)
        assert_near(found / 2, plain["total"])

    def test_columns_to_keep(self, features: np.ndarray) -> None:
        assert list(score({"id": np.arange(ROWS), "features": features}, keep=(), outputs="total")) == ["total"]

    def test_a_column_that_cannot_feed_the_model_is_named(self) -> None:
        with pytest.raises(ovray.ConfigError, match="columns that cannot be read are 'features'"):
            score(pd.DataFrame({"features": [object()]}))

    def test_bad_rows_are_named_by_their_number(self, features: np.ndarray) -> None:
        column = pa.array([None if row == 2_000 else list(features[row]) for row in range(ROWS)])

        with pytest.raises(ovray.DataError, match="the Arrow table, row 2000"):
            score(pa.table({"features": column}))

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (pd.DataFrame({"features": []}), "the DataFrame has no rows"),
            (iter(()), "the iterable has no rows"),
            (42, "the input is int; give files, a DataFrame"),
            ([[1.0, 2.0]], "batch 0 of the iterable is list"),
        ],
    )
    def test_what_cannot_be_scored_is_refused_before_anything_starts(self, given: Any, why: str) -> None:
        with pytest.raises(ovray.ConfigError, match=why):
            score(given)

    @pytest.mark.parametrize(
        "option",
        [
            {"restart": True},
            {"on_error": "record"},
            {"report": "run.html"},
            {"format": "csv"},
            {"rows_per_file": 9},
        ],
        ids=str,
    )
    def test_some_options_are_about_folders(self, features: np.ndarray, option: dict[str, Any]) -> None:
        with pytest.raises(ovray.ConfigError, match=r"name (one|their folder) with output="):
            score(features, **option)


class TestBatchesThatComeOneByOne:
    @pytest.mark.parametrize(
        ("shape_of", "total_of"),
        [
            (lambda rows: rows, lambda scored: scored),
            (lambda rows: {"features": rows}, lambda scored: scored["total"]),
            (lambda rows: a_table(rows), lambda scored: scored["total"].to_numpy()[:, None]),
            (
                lambda rows: pd.DataFrame({"features": list(rows)}, index=np.arange(len(rows)) + 5),
                lambda scored: scored["total"].to_numpy()[:, None],
            ),
        ],
        ids=["arrays", "dicts", "tables", "frames"],
    )
    def test_each_gets_its_own_results(
        self,
        features: np.ndarray,
        plain: dict[str, np.ndarray],
        shape_of: Callable[[np.ndarray], Any],
        total_of: Callable[[Any], Any],
    ) -> None:
        edges = [0, 0, 1, 700, 700, 1_500, ROWS]
        pieces = [features[start:stop] for start, stop in itertools.pairwise(edges)]

        scored = score((shape_of(piece) for piece in pieces), outputs="total")

        assert [len(one) if not isinstance(one, dict) else len(one["total"]) for one in scored] == [
            len(piece) for piece in pieces
        ]
        assert_near(np.concatenate([total_of(one) for one in scored]), plain["total"])
        if isinstance(scored[2], pd.DataFrame):
            assert scored[2].index.tolist() == list(range(5, 5 + 699))

    def test_a_reader_of_record_batches_gives_a_table(
        self, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        table = a_table(features)
        reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=250))

        scored = score(reader)

        assert isinstance(scored, pa.Table)
        assert scored["id"].to_pylist() == list(range(ROWS))
        assert_near(scored["total"], plain["total"][:, 0])

    def test_what_the_iterable_raises_comes_to_the_caller_as_it_is(self, features: np.ndarray) -> None:
        def batches() -> Iterator[np.ndarray]:
            yield features
            raise KeyError("the third file")

        with pytest.raises(KeyError, match="the third file"):
            score(batches())

    def test_a_batch_of_another_kind_is_named(self, features: np.ndarray) -> None:
        with pytest.raises(ovray.DataError, match="batch 1 of the iterable is str"):
            score(iter([features, "more"]))

    def test_no_more_than_the_limit_is_fetched(self, features: np.ndarray) -> None:
        fetched: list[int] = []

        def batches() -> Iterator[np.ndarray]:
            while True:
                fetched.append(len(fetched))
                yield features[:10]

        scored = score(batches(), outputs="total", limit=25)

        assert [len(one) for one in scored] == [10, 10, 5]
        assert len(fetched) <= 4


class TestFoldersOfResults:
    def test_rows_in_memory_can_be_written_and_are_known_again(
        self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        first = score(a_table(features), output=tmp_path / "o")
        again = score(a_table(features.copy()), output=tmp_path / "o")

        assert (first.rows, first.resumed_rows) == (ROWS, 0)
        assert (again.rows, again.resumed_rows) == (ROWS, ROWS)
        written = scores_in(tmp_path / "o")
        assert written["id"].to_pylist() == list(range(ROWS))
        assert_near(written["total"], plain["total"][:, 0])

    def test_rows_that_are_missing_are_scored(self, tmp_path: Path, features: np.ndarray) -> None:
        score(a_table(features), output=tmp_path / "o", commit_every_s=0.1)
        parts = sorted((tmp_path / "o").glob("part-*"))
        lost = pq.read_metadata(parts[0]).num_rows
        parts[0].unlink()

        again = score(a_table(features), output=tmp_path / "o")

        assert again.resumed_rows == ROWS - lost
        assert scores_in(tmp_path / "o")["id"].to_pylist() == list(range(ROWS))

    def test_other_rows_are_refused(self, tmp_path: Path, features: np.ndarray) -> None:
        score(a_table(features), output=tmp_path / "o")

        with pytest.raises(ovray.ConfigError, match="the Arrow table holds other rows"):
            score(a_table(features + 1), output=tmp_path / "o")

    def test_batches_can_be_written_but_not_carried_on(
        self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray]
    ) -> None:
        def batches() -> Iterator[pa.Table]:
            return (a_table(features).slice(at, 400) for at in range(0, ROWS, 400))

        report = score(batches(), output=tmp_path / "o")
        with pytest.raises(ovray.ConfigError, match=r"the batches cannot be recognised.*--restart"):
            score(batches(), output=tmp_path / "o")
        score(batches(), output=tmp_path / "o", restart=True)

        assert report.rows == ROWS
        assert any("only --restart would help" in text for text in report.warnings)
        assert_near(scores_in(tmp_path / "o")["total"], plain["total"][:, 0])

    @pytest.mark.parametrize("result_format", ["parquet", "csv", "arrow"])
    def test_batches_with_bad_rows_become_files_of_any_format_and_so_many_rows(
        self, tmp_path: Path, features: np.ndarray, plain: dict[str, np.ndarray], result_format: str
    ) -> None:
        bad, rows_per_file = [7, 699, 2_000], 700
        column = pa.array([None if row in bad else list(features[row]) for row in range(ROWS)])
        table = pa.table({"id": range(ROWS), "features": column})
        out, page = tmp_path / "o", tmp_path / "run.html"

        report = score(
            (table.slice(at, 300) for at in range(0, ROWS, 300)),
            output=out,
            outputs="total",
            on_error="record",
            max_errors=3,
            report=page,
            format=result_format,
            rows_per_file=rows_per_file,
        )

        # A slow device gets less than a file's rows at a time; then files are smaller, and still end at multiples.
        ranges = [tuple(map(int, path.stem.split("-")[1:])) for path in sorted(out.glob("part-*"))]
        edges = [0, *(stop for _, stop in ranges)]
        assert ranges == [*itertools.pairwise(edges)]
        assert {*range(0, ROWS, rows_per_file), ROWS} <= {*edges}
        good = [row for row in range(ROWS) if row not in bad]
        written = pyarrow.dataset.dataset(out, format=result_format).to_table()
        assert written["id"].to_pylist() == good
        assert_near(written["total"], plain["total"][good, 0])
        assert pq.read_table(out / "_errors")["id"].to_pylist() == bad
        assert (report.rows, report.errors) == (len(good), len(bad))
        assert "Rows that could not be scored: 3; " in page.read_text()

    def test_a_column_that_cannot_be_written_is_named(self, tmp_path: Path, features: np.ndarray) -> None:
        frame = pd.DataFrame({"features": list(features), "odd": [object()] * ROWS})

        with pytest.raises(ovray.ConfigError, match=r"column 'odd' of the DataFrame cannot be sent.*keep="):
            score(frame, output=tmp_path / "o")
        assert not (tmp_path / "o").exists()


class TestMemory:
    def test_the_store_holds_what_is_in_work_and_no_more(self) -> None:
        # 768 MiB of rows, none of which is in the store before its chunk is cut or after it is done.
        rows = np.zeros((2048, 96 * 1024), np.float32)
        biggest = _Watch()

        with biggest:
            ovray.score(models.a_wide_sum(rows.shape[1]), rows, devices="SIM?ms=1&nireq=1", batch_size=1)

        assert 0 < biggest.bytes < (WORK_THREADS + 0.25) * MAX_CHUNK_BYTES < rows.nbytes / 2


class _Watch:
    """Looks at what the object store holds, again and again, while the block runs."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._before = _stored_bytes()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(DEADLINE_S)

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, _stored_bytes() - self._before)


def _stored_bytes() -> float:
    there, free = ray.cluster_resources(), ray.available_resources()
    return there["object_store_memory"] - free.get("object_store_memory", 0.0)


def test_results_outlive_a_ray_that_was_started_for_them(tmp_path: Path) -> None:
    script = """
import numpy as np, ovray, ray
from ovray import digits
import pandas as pd
frame = pd.read_parquet(digits.held_out_file())
scored = ovray.score(digits.model_file(), frame, devices="CPU", precision="f32")
pieces = list(ovray.iter_score(digits.model_file(), frame, devices="CPU", precision="f32"))
assert not ray.is_initialized()
output = [name for name in scored.columns if name not in frame.columns][0]
together = pd.concat(pieces)
assert together.index.equals(frame.index)
assert np.array_equal(np.stack(together[output]), np.stack(scored[output]))
print(len(scored), float(np.stack(scored[output]).sum()))
"""
    environment = {**os.environ, "RAY_ADDRESS": "local", "OVRAY_LEASE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[0] == "540"
