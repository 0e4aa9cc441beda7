import numpy as np
import pyarrow as pa
import pytest

from ovray.errors import DataError
from ovray.scoring.columns import Binding, bind
from ovray.scoring.elements import ELEMENTS
from ovray.scoring.records import Rows
from ovray.scoring.tensors import fill, to_arrays
from tests.data_builders import a_model, a_port, some_rows


def bound(rows: Rows, shape: tuple[int | None, ...], element_type: str = "f32", *options: str) -> Binding:
    (binding,) = bind(a_model(a_port("x", shape, element_type)), rows.batch, options)
    return binding


NUMBERS = np.arange(24).reshape(6, 4)


@pytest.mark.parametrize("value_type", [pa.uint8(), pa.int64(), pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("element_type", ["f16", "f32", "f64"])
@pytest.mark.parametrize("kind", ["fixed", "list", "large", "nested"])
@pytest.mark.parametrize("part", [slice(None), slice(2, 5), slice(0, 0)])
def test_lists_become_rows_of_the_shape_of_the_input(
    value_type: pa.DataType, element_type: str, kind: str, part: slice
) -> None:
    # given
    listed = pa.array(NUMBERS.tolist(), pa.list_(value_type))
    if kind == "nested":
        column = pa.array(NUMBERS.reshape(6, 2, 2).tolist(), pa.list_(pa.list_(value_type, 2)))
    else:
        kinds = {
            "fixed": pa.list_(value_type, 4),
            "list": pa.list_(value_type),
            "large": pa.large_list(value_type),
        }
        column = listed.cast(kinds[kind])
    rows = some_rows({"x": column})
    binding = bound(rows, (None, 2, 2), element_type)

    # when: the rows are a part of the memory that they share
    length = len(range(6)[part])
    piece = Rows(file=rows.file, first_row=part.start or 0, batch=rows.batch.slice(part.start or 0, length))
    array = to_arrays(piece, [binding])["x"]

    # then
    assert array.dtype == ELEMENTS[element_type].dtype
    np.testing.assert_array_equal(array, NUMBERS.reshape(6, 2, 2)[part])


def test_columns_become_one_vector_in_their_order() -> None:
    rows = some_rows(
        {"b": pa.array([1, 2]), "id": pa.array([9, 9]), "a": pa.array([0.5, 1.5]), "c": pa.array([True, False])}
    )

    array = to_arrays(rows, [bound(rows, (None, 3), "f32", "[abc]")])["x"]

    np.testing.assert_array_equal(array, np.array([[1, 0.5, 1], [2, 1.5, 0]], np.float32))


def test_a_part_of_a_larger_buffer_is_filled_and_the_rest_left_alone() -> None:
    rows = some_rows({"x": pa.array(NUMBERS[:2].tolist(), pa.list_(pa.uint8(), 4))})
    buffer = np.full((8, 4), -1, np.float32)

    fill(rows, bound(rows, (None, 4)), buffer[3:5])

    np.testing.assert_array_equal(buffer[3:5], NUMBERS[:2])
    assert (np.delete(buffer, [3, 4], axis=0) == -1).all()


def test_text_booleans_and_decimals_become_what_the_input_takes() -> None:
    text = some_rows({"x": pa.array(["a", "é", "a"]).dictionary_encode()})
    truth = some_rows({"x": pa.array([[True, False]] * 3)})
    money = some_rows({"x": pa.array([1, 2, 3]).cast(pa.decimal128(30, 2))})

    assert to_arrays(text, [bound(text, (None,), "string")])["x"].tolist() == ["a", "é", "a"]
    assert to_arrays(truth, [bound(truth, (None, 2), "boolean")])["x"].tolist() == [[True, False]] * 3
    assert to_arrays(money, [bound(money, (None,), "f32")])["x"].tolist() == [1.0, 2.0, 3.0]


def test_tensors_become_rows_whatever_their_rank() -> None:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(NUMBERS.reshape(6, 2, 2).astype(np.float32))
    rows = some_rows({"x": column})

    array = to_arrays(rows, [bound(rows, (None, 2, 2))])["x"]

    np.testing.assert_array_equal(array, NUMBERS.reshape(6, 2, 2))


def test_numbers_too_large_for_a_narrower_float_become_infinite_quietly(recwarn: pytest.WarningsRecorder) -> None:
    rows = some_rows({"x": pa.array([1e300, -1e300])})

    assert to_arrays(rows, [bound(rows, (None,))])["x"].tolist() == [float("inf"), float("-inf")]
    assert not recwarn.list


GOOD = [1, 2, 3, 4]
BAD_ROWS = {
    "null cell": (pa.array([GOOD, None], pa.list_(pa.int64())), (None, 4), "f32", "column 'x' is null"),
    "null in a list": (pa.array([GOOD, [1, 2, 3, None]]), (None, 4), "f32", "column 'x' is null"),
    "null fixed": (pa.array([GOOD, None], pa.list_(pa.int64(), 4)), (None, 4), "f32", "column 'x' is null"),
    "null number": (pa.array([1, None]), (None,), "f32", "column 'x' is null"),
    "null text": (pa.array(["a", None]), (None,), "string", "column 'x' is null"),
    "null in a dictionary": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])),
        (None,),
        "string",
        "column 'x' is null",
    ),
    "short list": (pa.array([GOOD, [1]]), (None, 4), "f32", "holds a list of 1 where the first rows hold 4"),
    "short nested": (pa.array([[[1, 2], [3, 4]], [[1, 2], [3]]]), (None, 4), "f32", "holds a list of 1 where"),
    "uneven nested": (pa.array([[[1, 2], [3, 4]], [[1], [2, 3, 4]]]), (None, 4), "f32", "holds a list of 1 where"),
    "above": (pa.array([255, 256]), (None,), "u8", "column 'x' holds 256, input 'x' (u8) takes 0 to 255"),
    "below": (pa.array([[0, 0], [0, -1]]), (None, 2), "u64", "column 'x' holds -1, input 'x' (u64) takes 0 to"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_that_is_no_input_is_named(case: str) -> None:
    # given: a binding made from the first row, which is fine, and the second, which is not
    column, shape, element_type, message = BAD_ROWS[case]
    good = some_rows({"x": column.slice(0, 1)})
    binding = bound(good, shape, element_type)

    with pytest.raises(DataError) as raised:
        to_arrays(some_rows({"x": column}, first_row=100), [binding])

    assert str(raised.value).startswith("rows.parquet, row 101 (the first is 0): ")
    assert message in str(raised.value)
