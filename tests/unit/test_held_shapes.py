"""Rows in memory are seen as a table, untouched, and results get the shape that the rows have."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.delivery import InOrder
from ovray.scoring.held import Held, head, hold
from ovray.scoring.held_rows import HeldRows
from ovray.scoring.outputs import OutputColumn, output_columns, to_columns
from tests.data_builders import a_port


def outputs(rows: int) -> tuple[tuple[OutputColumn, ...], dict[str, np.ndarray[Any, Any]], pa.Table]:
    """Return two outputs of a model with a batch dimension, their values, and the columns that they become."""
    binding: Any = type("Binding", (), {"has_batch": True})()
    columns = output_columns([a_port("one", (None, 1)), a_port("grid", (None, 2, 3))], [binding])
    values = {
        "one": np.arange(rows, dtype=np.float32).reshape(rows, 1),
        "grid": np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3),
    }
    flat = {name: array.reshape(rows, -1) for name, array in values.items()}
    table = pa.table(dict(zip(flat, to_columns(flat, columns), strict=True)))
    # In two pieces, as chunks come.
    return columns, values, pa.concat_tables([table.slice(0, 1), table.slice(1)])


def held(given: Any) -> Held:
    found = hold(given)
    assert found is not None
    return found


class TestADataFrame:
    def test_gets_its_index_back(self) -> None:
        frame = pd.DataFrame({"id": [1, 2, 3], "x": [0.5, 1.5, 2.5]}, index=["c", "a", "a"])
        columns, values, table = outputs(3)

        scored = held(frame).with_results(["id"], table, columns)

        assert list(scored.columns) == ["id", "one", "grid"]
        assert scored.index.tolist() == ["c", "a", "a"]
        assert scored["one"].tolist() == values["one"].reshape(-1).tolist()
        assert np.array_equal(np.stack(scored["grid"]), values["grid"].reshape(3, 6))

    def test_is_left_as_it_is(self) -> None:
        frame = pd.DataFrame({"id": [1, 2, 3]})
        before = frame.copy()
        columns, _, table = outputs(3)

        scored = held(frame).with_results(["id"], table, columns)
        scored.loc[0, "id"] = 99

        pd.testing.assert_frame_equal(frame, before)

    def test_keeps_types_that_arrow_would_change(self) -> None:
        frame = pd.DataFrame({"odd": [{1}, {2}, {3}], "kind": pd.Categorical(["x", "y", "x"]), 7: [1, 2, 3]})
        columns, _, table = outputs(3)

        scored = held(frame).with_results(["odd", "kind", "7"], table, columns)

        assert scored["odd"].tolist() == [{1}, {2}, {3}]
        assert scored["kind"].dtype == frame["kind"].dtype
        assert 7 in scored.columns

    def test_says_which_columns_arrow_cannot_hold(self) -> None:
        found = held(pd.DataFrame({"x": [1.0], "odd": [object()]}))

        assert list(found.unfit) == ["odd"]
        assert found.table.schema.names == ["x", "odd"]

    def test_nan_stays_a_number(self) -> None:
        table = held(pd.DataFrame({"x": [1.0, float("nan")]})).table

        assert table["x"].null_count == 0

    def test_numbers_are_not_copied(self) -> None:
        values = np.arange(1000.0)
        table = held(pd.DataFrame({"x": values}, copy=False)).table

        assert table["x"].chunk(0).buffers()[1].address == values.ctypes.data

    def test_cells_may_be_arrays_of_any_rank(self) -> None:
        images = [np.full((2, 3, 4), number, np.uint8) for number in range(3)]
        column = held(pd.DataFrame({"image": images})).table["image"]

        assert column.to_pylist() == [image.tolist() for image in images]

    def test_two_columns_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="more than one column named '1'"):
            hold(pd.DataFrame([[1, 2]], columns=[1, "1"]))


class TestArrays:
    def test_an_array_gives_an_array_of_the_models_own_shape(self) -> None:
        columns, values, table = outputs(3)

        one = held(np.zeros((3, 2))).with_results([], table.select(["grid"]), columns[1:])

        assert isinstance(one, np.ndarray)
        assert np.array_equal(one, values["grid"])
        assert one.flags.writeable

    def test_an_array_gives_a_dict_where_there_are_several_outputs(self) -> None:
        columns, values, table = outputs(3)

        found = held(np.zeros((3, 2))).with_results([], table, columns)

        assert list(found) == ["one", "grid"]
        assert np.array_equal(found["one"], values["one"])

    def test_a_dict_gives_a_dict_even_of_one(self) -> None:
        columns, _, table = outputs(3)
        ids = np.array([7, 8, 9])

        found = held({"id": ids, "x": np.zeros((3, 2))}).with_results(["id"], table.select(["one"]), columns[:1])

        assert list(found) == ["id", "one"]
        assert found["id"] is not ids

    @pytest.mark.parametrize(
        "array",
        [
            np.arange(24, dtype=np.int16).reshape(4, 2, 3),
            np.asfortranarray(np.arange(24.0).reshape(4, 6)),
            np.arange(24.0).reshape(6, 4).T,
            np.arange(8, dtype=">f4").reshape(4, 2),
            np.array([[True, False], [False, True]]),
            np.array(["a", "bc"]),
            np.array(["a", None], dtype=object),
            np.arange(40, dtype=np.float32)[::10],
        ],
    )
    def test_every_layout_and_type_becomes_the_same_values(self, array: "np.ndarray[Any, Any]") -> None:
        assert held(array).table["array"].to_pylist() == array.tolist()

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({}, "empty"),
            ({"a": 1.5}, "single value"),
            ({1: [2]}, "names of columns are text"),
            ({"a": [1, 2], "b": [1]}, "2 rows but 'b' has 1"),
            (np.zeros((2, 0)), "hold no values"),
            (np.zeros(2, complex), "no Arrow type"),
        ],
    )
    def test_what_cannot_be_rows_is_refused(self, given: Any, why: str) -> None:
        with pytest.raises(ConfigError, match=why):
            hold(given)


class TestArrow:
    def test_a_table_gives_a_table(self) -> None:
        table = pa.table({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]})
        columns, _, results = outputs(3)

        scored = held(table).with_results(["id"], results, columns)

        assert isinstance(scored, pa.Table)
        assert scored.schema.names == ["id", "one", "grid"]
        assert scored.schema.field("grid") == columns[1].field

    def test_a_record_batch_gives_a_record_batch(self) -> None:
        columns, _, results = outputs(3)

        scored = held(pa.record_batch({"id": [1, 2, 3]})).with_results(["id"], results, columns)

        assert isinstance(scored, pa.RecordBatch)
        assert scored.num_rows == 3


@pytest.mark.parametrize(
    "given",
    [pd.DataFrame({"array": range(5)}), pa.table({"array": range(5)}), {"array": list(range(5))}, np.arange(5)],
)
def test_the_first_rows_have_the_same_shape(given: Any) -> None:
    first = head(given, 2)

    assert held(first).table["array"].to_pylist() == [0, 1]
    assert isinstance(first, type(given))


def test_what_is_no_rows_is_none_of_these_shapes() -> None:
    assert hold([1, 2]) is None
    assert hold("rows.parquet") is None


class TestBatches:
    def test_are_numbered_one_after_the_other(self) -> None:
        rows = HeldRows("the batches", held(np.arange(3)))
        rows.add(held(np.arange(4)))

        assert rows.rows == 7
        assert rows.frame(["array"], 2, 5)["array"].to_dict() == {2: 2, 3: 0, 4: 1}

    def test_data_frames_keep_their_index(self) -> None:
        rows = HeldRows("the batches", held(pd.DataFrame({"x": [1, 2]}, index=["a", "b"])))
        rows.add(held(pd.DataFrame({"x": [3]}, index=["c"])))

        assert rows.frame(["x"], 1, 3)["x"].to_dict() == {"b": 2, "c": 3}

    def test_are_let_go_of_when_nobody_needs_them(self) -> None:
        rows = HeldRows("the batches", held(np.arange(3)))
        rows.add(held(np.arange(4)))
        rows.drop_until(5)

        assert rows.frame(["array"], 3, 7)["array"].tolist() == [0, 1, 2, 3]
        assert rows.take_batch(6) is None
        assert rows.take_batch(7) is not None
        assert rows.take_batch(7) is None

    def test_a_batch_that_lacks_a_column_is_named(self) -> None:
        rows = HeldRows("the batches", held({"x": [1], "y": [1]}))
        rows.add(held({"y": [1], "x": [1]}))

        with pytest.raises(DataError, match="batch 2 of the batches has no column 'y'"):
            rows.add(held({"x": [1]}))

    def test_a_batch_with_another_type_is_named(self) -> None:
        rows = HeldRows("the batches", held({"x": [1.5]}))
        rows.add(held({"x": [1]}))  # whole numbers are floats, too

        with pytest.raises(DataError, match=r"batch 2 .* column 'x' is string, in the first batch double"):
            rows.add(held({"x": ["1"]}))


class TestADigest:
    def digest(self, given: Any, *columns: str) -> str:
        return HeldRows("rows", held(given)).digest(columns or ("x",))

    def test_is_the_same_for_the_same_rows_however_they_lie(self) -> None:
        whole = pa.table({"x": [1.0, 2.0, 3.0], "y": [1, 2, 3]})
        cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])

        assert self.digest(whole) == self.digest(cut) == self.digest(whole.drop(["y"]))

    @pytest.mark.parametrize("other", [[1.0, 2.0, 4.0], [1.0, 2.0], [1, 2, 3], [1.0, 2.0, None]])
    def test_is_another_for_other_rows(self, other: list[Any]) -> None:
        assert self.digest(pa.table({"x": [1.0, 2.0, 3.0]})) != self.digest(pa.table({"x": other}))

    def test_sees_the_values_of_categories(self) -> None:
        one, other = (pa.table({"x": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["a", "c"]))

        assert self.digest(one) != self.digest(other)


def test_what_comes_in_any_order_goes_on_in_the_order_of_rows() -> None:
    in_order = InOrder()

    assert list(in_order.add(5, 7, "c")) == []
    assert list(in_order.add(0, 2, "a")) == [(0, 2, "a")]
    assert list(in_order.add(2, 5, "b")) == [(2, 5, "b"), (5, 7, "c")]
    assert in_order.row == 7
