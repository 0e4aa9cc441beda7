import json

import numpy as np
import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.columns import bind
from ovray.scoring.outputs import SHAPE_KEY, output_columns, output_schema, to_columns
from tests.data_builders import a_model, a_port, some_rows

BATCHED = bind(a_model(a_port("x", (None,))), some_rows({"x": pa.array([1.0])}).batch)
ONE_ROW = bind(a_model(a_port("x", ())), some_rows({"x": pa.array([1.0])}).batch)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((None,), pa.float32()),
        ((None, 1), pa.float32()),
        ((None, 1, 1), pa.float32()),
        ((8, 1), pa.float32()),
        ((None, 10), pa.list_(pa.float32(), 10)),
        ((None, 3, 4), pa.list_(pa.float32(), 12)),
        ((None, None), pa.list_(pa.float32())),
        ((None, 2, None), pa.list_(pa.float32())),
        (None, pa.list_(pa.float32())),
    ],
)
def test_an_output_becomes_a_column_of_numbers_or_lists(
    shape: tuple[int | None, ...] | None, kind: pa.DataType
) -> None:
    (column,) = output_columns([a_port("y", shape)], BATCHED)

    assert (column.name, column.field.name, column.field.type) == ("y", "y", kind)


@pytest.mark.parametrize(("shape", "kind"), [((), pa.float32()), ((10,), pa.list_(pa.float32(), 10))])
def test_without_a_batch_dimension_the_whole_output_is_the_row_s(
    shape: tuple[int, ...], kind: pa.DataType
) -> None:
    (column,) = output_columns([a_port("y", shape)], ONE_ROW)

    assert column.field.type == kind


@pytest.mark.parametrize(
    ("element_type", "value", "kind"),
    [
        ("f16", np.float16(0.1), pa.float16()),
        ("f64", np.float64(0.1), pa.float64()),
        ("i64", np.int64(2**53 + 1), pa.int64()),
        ("u64", np.uint64(2**64 - 1), pa.uint64()),
        ("i8", np.int8(-1), pa.int8()),
        ("u8", np.uint8(255), pa.uint8()),
        ("boolean", np.bool_(True), pa.bool_()),
    ],
)
@pytest.mark.parametrize("row_shape", [(), (2,)])
def test_results_keep_their_type_and_value(
    element_type: str, value: np.generic, kind: pa.DataType, row_shape: tuple[int, ...]
) -> None:
    columns = output_columns([a_port("y", (None, *row_shape), element_type)], BATCHED)

    (array,) = to_columns({"y": np.full((3, *row_shape), value)}, columns)

    assert array.type == (pa.list_(kind, 2) if row_shape else kind)
    assert array.to_pylist() == [value.item() if not row_shape else [value.item()] * 2] * 3


def test_text_stays_text() -> None:
    columns = output_columns([a_port("y", (None,), "string")], BATCHED)

    (array,) = to_columns({"y": np.array(["a", "é"], dtype=object)}, columns)

    assert array == pa.array(["a", "é"])


def test_nan_stays_a_number() -> None:
    (array,) = to_columns({"y": np.array([np.nan], np.float32)}, output_columns([a_port("y", (None,))], BATCHED))

    assert array.null_count == 0
    assert np.isnan(array[0].as_py())


def test_numbers_are_not_copied() -> None:
    result = np.zeros((4, 3), np.float32)

    (array,) = to_columns({"y": result}, output_columns([a_port("y", (None, 3))], BATCHED))

    assert array.values.buffers()[1].address == result.ctypes.data


def test_the_shape_of_more_than_one_dimension_is_noted() -> None:
    flat, shaped = output_columns([a_port("flat", (None, 6)), a_port("shaped", (None, 2, 3))], BATCHED)

    assert flat.field.metadata is None
    assert json.loads(shaped.field.metadata[SHAPE_KEY]) == [2, 3]


def test_lengths_that_the_model_leaves_open_are_those_of_each_result() -> None:
    columns = output_columns([a_port("y", (None, None))], BATCHED)

    arrays = [to_columns({"y": np.ones(shape, np.float32)}, columns)[0] for shape in ((2, 3), (1, 0), (0, 5))]

    assert [array.to_pylist() for array in arrays] == [[[1, 1, 1]] * 2, [[]], []]


def test_the_result_has_the_kept_columns_first_as_they_are() -> None:
    kept = pa.schema([pa.field("id", pa.int64(), nullable=False, metadata={"unit": "m"})])

    schema = output_schema(kept, output_columns([a_port("y", (None,))], BATCHED))

    assert schema.names == ["id", "y"]
    assert schema.field("id").equals(kept.field("id"), check_metadata=True)


def test_outputs_that_no_column_can_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="output 'y' is a single value, not one for each row"):
        output_columns([a_port("y", ())], BATCHED)
    with pytest.raises(ConfigError, match="output 'y' is of type u4, which no column can hold"):
        output_columns([a_port("y", (None,), "u4")], BATCHED)
    with pytest.raises(ConfigError, match="more than one output named 'y'"):
        output_columns([a_port("y"), a_port("y")], BATCHED)


@pytest.mark.parametrize("shape", [(None,), (None, 2)])
def test_results_of_another_size_than_their_rows_are_refused(shape: tuple[int | None, ...]) -> None:
    columns = output_columns([a_port("y", shape)], BATCHED)

    with pytest.raises(DataError, match="output 'y' holds 9 values for 3 rows where its column needs"):
        to_columns({"y": np.zeros((3, 3), np.float32)}, columns)
