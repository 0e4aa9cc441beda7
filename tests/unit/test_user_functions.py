import pickle
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.bad_rows import BadRows, Stage, StageRows
from ovray.scoring.feeding import FunctionFeeder, FunctionPreparation, as_array, bind_arrays, columns_for_function
from ovray.scoring.finishing import plan_finish
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.outputs import output_columns
from ovray.scoring.records import FileRef, Format, Slice
from ovray.scoring.user_functions import UserFunction, find_function
from tests.data_builders import a_model, a_port, some_rows
from tests.unit.test_shaping_outputs import BATCHED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Is where the command was started; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def of_python(function: Any) -> UserFunction:
    return find_function("--preprocess", function)


class TestFinding:
    def test_a_function_of_a_file_here_travels_to_where_the_file_is_not(self, folder: Path) -> None:
        (folder / "mine_to_travel.py").write_text(
            "FACTOR = 3\ndef triple(batch):\n    return {'x': batch['a'] * FACTOR}\n"
        )
        path_before = list(sys.path)

        found = pickle.loads(pickle.dumps(find_function("--preprocess", "mine_to_travel:triple")))
        del sys.modules["mine_to_travel"]
        (folder / "mine_to_travel.py").unlink()

        made = found.call(found.load(), {"a": np.arange(3)}, 3, "rows")
        assert made["x"].tolist() == [0, 3, 6]
        assert (found.name, sys.path) == ("mine_to_travel:triple", path_before)

    def test_what_is_installed_is_only_named(self) -> None:
        assert len(find_function("--preprocess", "numpy:negative").pickled) < 200

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("prepare", "give MODULE:FUNCTION"),
            (":f", "give MODULE:FUNCTION"),
            ("no_such_module_here:f", "no_such_module_here cannot be imported: ModuleNotFoundError"),
            ("broken_module:f", "broken_module cannot be imported: ZeroDivisionError"),
            ("numpy:no_such", "numpy has no 'no_such'"),
            ("numpy:pi", "is float, not a function"),
        ],
    )
    def test_what_cannot_be_called_is_refused(self, folder: Path, name: str, message: str) -> None:
        (folder / "broken_module.py").write_text("1 / 0")

        with pytest.raises(ConfigError, match=re.escape(message)):
            find_function("--postprocess", name)

    def test_what_cannot_travel_is_refused(self) -> None:
        lock = threading.Lock()

        with pytest.raises(ConfigError, match="cannot be sent to the replicas"):
            find_function("--preprocess", lambda batch: lock)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: batch["b"], "data.parquet, rows 3 to 5: --preprocess"),
        (lambda batch: batch["b"], "failed with KeyError: 'b'"),
        (lambda batch: batch["a"], "it gave ndarray, not a dict of arrays"),
        (lambda batch: {"x": batch["a"][:1]}, "gave 1 rows of 'x' for 2 rows"),
        (lambda batch: {"x": 1.0}, "gave a single value of 'x' for 2 rows"),
    ],
)
def test_an_error_names_the_rows_and_the_function(function: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        of_python(function).call(function, {"a": np.arange(2)}, 2, "data.parquet, rows 3 to 5")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, 2], pa.uint8()), np.array([1, 2], np.uint8)),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int16())), np.array([[1, 2], [3, 4]], np.int16)),
        (pa.array([[[1], [2]], [[3], [4]]]), np.array([[[1], [2]], [[3], [4]]])),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.float32(), 2)), np.array([[1, 2], [3, 4]], np.float32)),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((2, 3, 4))), np.ones((2, 3, 4))),
        (pa.array(["a", "b"]), np.array(["a", "b"], object)),
        (pa.array(["a", "b"]).dictionary_encode(), np.array(["a", "b"], object)),
        (pa.array([b"\x00", None]), np.array([b"\x00", None], object)),
        (pa.array([1.5, None]), np.array([1.5, np.nan])),
    ],
)
def test_a_function_gets_columns_as_arrays(column: pa.Array, expected: "np.ndarray[Any, Any]") -> None:
    array = as_array(column)

    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(as_array(column.slice(1)), expected[1:])


@pytest.mark.parametrize("column", [pa.array([[1], [2, 3]]), pa.array([[1], None]), pa.array([[[1]], [None]])])
def test_irregular_lists_come_as_objects(column: pa.Array) -> None:
    array = as_array(column)

    assert (array.dtype, array.shape) == (np.dtype(object), (2,))


def test_a_function_gets_the_columns_named_or_all() -> None:
    schema = pa.schema([("a1", pa.int64()), ("a2", pa.int64()), ("b", pa.int64())])

    assert columns_for_function(schema, ()) == ("a1", "a2", "b")
    assert columns_for_function(schema, ("b", "a*", "b")) == ("b", "a1", "a2")
    with pytest.raises(ConfigError, match="no column 'c'"):
        columns_for_function(schema, ("c",))


class TestBindingArrays:
    def test_arrays_become_inputs_by_name_in_the_model_s_order(self) -> None:
        model = a_model(a_port("x", (None, 2, 2)), a_port("y", (None,), "i64"))
        arrays = {"y": np.arange(3, dtype=np.int32), "x": np.zeros((3, 4))}

        x, y = bind_arrays(model, arrays, of_python(len))

        assert (x.input_name, x.columns, x.row_shape, x.cell_shape) == ("x", ("x",), (2, 2), (4,))
        assert (y.input_name, y.columns, y.row_shape, y.cell_shape) == ("y", ("y",), (), ())

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({}, "gave nothing: it must give one array for input 'x' (u8[?,4])"),
            ({"z": np.zeros((2, 4))}, "gave 'z', no input of the model, which has 'x'"),
            ({"x": np.zeros((2, 3), np.uint8)}, "cannot become input 'x' (u8[?,4])"),
            ({"x": np.zeros((2, 4), np.int64)}, "holds int64, which may not fit into u8"),
            ({"x": np.zeros((2, 4), "M8[s]")}, "give numbers, booleans or text"),
        ],
    )
    def test_what_cannot_become_an_input_is_refused(self, arrays: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            bind_arrays(a_model(a_port("x", (None, 4), "u8")), arrays, of_python(len))

    @pytest.mark.parametrize(
        ("later", "message"),
        [
            (np.zeros((2, 5)), "'x' has rows of the shape [5], the first rows had [4]"),
            (np.array([["a"] * 4] * 2), "'x' holds <U1"),
        ],
    )
    def test_rows_that_come_otherwise_than_the_first_are_an_error(self, later: Any, message: str) -> None:
        (binding,) = bind_arrays(a_model(a_port("x")), {"x": np.zeros((2, 4))}, of_python(len))
        preparation = FunctionPreparation(function=of_python(lambda batch: {"x": later}), columns=("a",))
        rows = some_rows({"a": pa.array([1, 2])}, first_row=7)

        with pytest.raises(DataError, match=re.escape(message)) as caught:
            FunctionFeeder(preparation, [binding]).feed(rows)
        assert "rows.parquet, rows 7 to 9" in str(caught.value)


class TestFinishing:
    PORTS = (a_port("y", (None, 3)),)

    def finish(self, function: Any, outputs: "np.ndarray[Any, Any]") -> list[list[Any]]:
        takes = output_columns(self.PORTS, BATCHED)
        plan, made = plan_finish(of_python(function), self.PORTS, takes, has_batch=True, batch_rows=2)
        columns = output_columns(made, BATCHED)
        where = Slice(
            ref=FileRef(name="a.csv", location="/a.csv", format=Format.CSV),
            start=0,
            stop=5,
            blocks=(),
            size_bytes=1,
        )
        bad = BadRows((0, len(outputs)), [where], ErrorOptions())
        arrays = plan.finish(function, [outputs], columns, StageRows(bad, Stage.FINISH, int))
        return [array.to_pylist() for array in arrays]

    def test_a_function_s_arrays_become_columns_a_few_rows_at_a_time(self) -> None:
        seen = []

        def function(batch: dict[str, Any]) -> dict[str, Any]:
            seen.append(len(batch["y"]))
            text = np.array(["high" if row > 10 else "low" for row in batch["y"].sum(axis=1)], dtype=object)
            return {"text": text, "pair": batch["y"][:, :2].astype(np.float64)}

        text, pair = self.finish(function, np.arange(15, dtype=np.float32).reshape(5, 3))

        assert text == ["low", "high", "high", "high", "high"]
        assert pair == [[0, 1], [3, 4], [6, 7], [9, 10], [12, 13]]
        assert seen == [2, 2, 1]

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda batch: {}, "gave no columns"),
            (lambda batch: {"a": np.array([{}, {}])}, "gave object for 'a'"),
            (lambda batch: 1 / 0, "2 rows of zeros: --preprocess"),
        ],
    )
    def test_what_zeros_show_is_refused_at_the_start(self, function: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            self.finish(function, np.ones((2, 3), np.float32))

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda y: {str(y[0, 0]): y}, "gave 1.0; of zeros it gave 0.0"),
            (lambda y: {"a": y if y.any() else y.astype(int)}, "gave float32 for 'a'"),
            (lambda y: {"a": y[:, : 1 + int(y[0, 0])]}, "output 'a' holds 2 values for 1 rows"),
        ],
    )
    def test_results_that_differ_from_those_of_zeros_are_an_error(self, function: Any, message: str) -> None:
        with pytest.raises(DataError, match=re.escape(message)) as caught:
            self.finish(lambda batch: function(batch["y"]), np.ones((2, 3), np.float32))
        assert "a.csv, row 0 (the first is 0): --preprocess" in str(caught.value)

    def test_outputs_of_open_length_are_refused(self) -> None:
        ports = (a_port("y", (None, None)),)

        with pytest.raises(ConfigError, match="rows of no known shape"):
            plan_finish(of_python(dict), ports, output_columns(ports, BATCHED), has_batch=True, batch_rows=2)
