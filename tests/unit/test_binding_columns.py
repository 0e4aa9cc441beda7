from dataclasses import replace

import pyarrow as pa
import pytest

from ovray.errors import ConfigError
from ovray.scoring.columns import Binding, bind, kept_columns
from tests.data_builders import a_model, a_port

FLOATS = pa.array([[1.0, 2.0, 3.0, 4.0]] * 2, pa.list_(pa.float32(), 4))
OPEN_FLOATS = FLOATS.cast(pa.list_(pa.float32()))
BYTES = pa.array([list(range(12))] * 2, pa.list_(pa.uint8(), 12))
NESTED = pa.array([[[1.0, 2.0], [3.0, 4.0]]] * 2)
RAGGED = pa.array([[1.0, 2.0, 3.0, 4.0], [1.0]])
IDS = pa.array([1, 2])
TEXT = pa.array(["a", "b"])
TIMES = pa.array([1, 2], pa.timestamp("us", tz="UTC"))


def sample(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def bind_one(
    port_shape: tuple[int | None, ...] | None, element_type: str, *options: str, **columns: pa.Array
) -> Binding:
    (binding,) = bind(a_model(a_port("x", port_shape, element_type)), sample(**columns), options)
    return binding


def test_the_column_with_the_name_of_the_input_is_taken() -> None:
    assert bind_one((None, 4), "f32", other=FLOATS, x=FLOATS).columns == ("x",)


def test_else_the_only_column_that_fits_is_taken() -> None:
    assert bind_one(
        (None, 4), "f32", id=IDS, text=TEXT, times=TIMES, bytes=BYTES, ragged=RAGGED, it=FLOATS
    ).columns == ("it",)


@pytest.mark.parametrize(
    ("shape", "element_type", "column", "row_shape", "has_batch"),
    [
        ((None, 4), "f32", FLOATS, (4,), True),
        ((None, 4), "f32", OPEN_FLOATS, (4,), True),
        ((None, 4), "f32", NESTED, (4,), True),
        ((None, 2, 2), "f32", FLOATS, (2, 2), True),
        ((None, 2, 2), "f16", NESTED, (2, 2), True),
        ((None, None, None), "f32", NESTED, (2, 2), True),
        ((None, None), "f32", FLOATS, (4,), True),
        ((None, 2, None), "f32", FLOATS, (2, 2), True),
        ((1, 4), "f32", FLOATS, (4,), True),
        ((8, 4), "f32", FLOATS, (4,), True),
        ((4,), "f32", FLOATS, (4,), False),
        ((2, 2), "f32", FLOATS, (2, 2), False),
        ((None, 3, 2, 2), "f32", BYTES, (3, 2, 2), True),
        ((None, 3, 2, 2), "u8", BYTES, (3, 2, 2), True),
        ((None,), "f32", IDS, (), True),
        ((None, 1), "f32", IDS, (1,), True),
        ((1,), "i64", IDS, (), True),
        ((), "f32", IDS, (), False),
        (None, "f32", FLOATS, (4,), True),
        ((None,), "string", TEXT, (), True),
        ((None, 1), "string", TEXT.dictionary_encode(), (1,), True),
        ((None,), "boolean", pa.array([True, False]), (), True),
        ((None,), "f32", pa.array([True, False]), (), True),
        ((None,), "i32", IDS, (), True),
        ((None,), "f64", pa.array([1, 2], pa.decimal128(5, 2)), (), True),
        (
            (None, 4),
            "f32",
            pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), (2, 2)), FLOATS),
            (4,),
            True,
        ),
    ],
)
def test_cells_of_these_kinds_become_inputs_of_these_shapes(
    shape: tuple[int | None, ...] | None,
    element_type: str,
    column: pa.Array,
    row_shape: tuple[int, ...],
    has_batch: bool,
) -> None:
    binding = bind_one(shape, element_type, c=column)

    assert (binding.columns, binding.row_shape, binding.has_batch) == (("c",), row_shape, has_batch)


@pytest.mark.parametrize(
    ("shape", "element_type", "column", "reason"),
    [
        ((None, 5), "f32", FLOATS, "a row of it holds 4 values where the input is f32[?,5]: 5 values a row"),
        (
            (None, 3, None),
            "f32",
            FLOATS,
            "a row of it holds 4 values where the input is f32[?,3,?]: a multiple of 3 values",
        ),
        ((None, None, None), "f32", FLOATS, "a row of it holds 4 values where the input is f32[?,?,?]"),
        ((None, 4), "f32", IDS, "a row of it holds 1 value where the input is f32[?,4]: 4 values a row"),
        ((None, 4), "f32", pa.nulls(2, pa.list_(pa.float32())), "the lists in its first rows are null or of"),
        ((None, 4), "f32", RAGGED, "the lists in its first rows are null or of different lengths"),
        ((None,), "f32", TEXT, "it holds string, the input takes numbers (f32)"),
        ((None,), "f32", TIMES, "it holds timestamp[us, tz=UTC], the input takes numbers (f32)"),
        ((None, 4), "i32", FLOATS, "it holds float, the input takes whole numbers (i32)"),
        ((None,), "boolean", IDS, "it holds int64, the input takes booleans"),
        ((None,), "string", IDS, "it holds int64, the input takes text"),
        ((None,), "bf16", IDS, "the input's element type bf16 is none that ovray feeds"),
        ((None,), "f32", pa.nulls(2), "it holds null, the input takes numbers (f32)"),
        ((None,), "u8", pa.array([b"x", b"y"]), "it holds binary, the input takes numbers (u8)"),
    ],
)
@pytest.mark.parametrize("options", [(), ("x=x",), ("x",)])
def test_a_column_that_cannot_become_the_input_says_why(
    shape: tuple[int | None, ...], element_type: str, column: pa.Array, reason: str, options: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as raised:
        bind_one(shape, element_type, *options, x=column, y=FLOATS)

    assert str(raised.value).startswith(f"column 'x' ({column.type}) cannot become input 'x' ({element_type}[")
    assert reason in str(raised.value)


def test_two_columns_that_could_both_be_meant_are_listed() -> None:
    with pytest.raises(ConfigError) as raised:
        bind_one((None, 4), "f32", a=FLOATS, b=NESTED, c=IDS)

    assert str(raised.value) == (
        "input 'x' (f32[?,4]) could be meant to take any of the columns 'a', 'b'; choose one with --input x=COLUMN"
    )


def test_a_data_set_without_a_fitting_column_lists_what_it_has() -> None:
    with pytest.raises(ConfigError) as raised:
        bind_one((None, 4), "f32", id=IDS, text=TEXT)

    assert str(raised.value) == (
        "no column can become input 'x': the input is f32[?,4]: 4 values a row; the columns are: id (int64), text"
        " (string); choose columns with --input COLUMN, or several columns of numbers with --input 'PREFIX*'"
    )


def test_columns_that_would_make_one_vector_are_proposed() -> None:
    with pytest.raises(ConfigError, match=r"to feed 'f0' to 'f3' as one input, pass --input 'f\*'"):
        bind_one((None, 4), "f32", id=IDS, f0=IDS, f1=IDS, f2=IDS, f3=IDS)


@pytest.mark.parametrize("option", ["b", "x=b"])
def test_an_option_chooses_the_column(option: str) -> None:
    assert bind_one((None, 4), "f32", option, x=FLOATS, b=FLOATS).columns == ("b",)


def test_a_wildcard_makes_one_vector_in_the_order_of_columns() -> None:
    columns = {f"p_{at}": IDS for at in (2, 0, 10, 1)}

    binding = bind_one((None, 2, 2), "f32", "p_*", id=IDS, **columns)

    assert (binding.columns, binding.row_shape, binding.cell_shape) == (("p_2", "p_0", "p_10", "p_1"), (2, 2), ())


def test_a_wildcard_that_finds_one_column_is_that_column() -> None:
    assert bind_one((None, 4), "f32", "p*", a=FLOATS, pixels=FLOATS).columns == ("pixels",)


def test_a_column_may_have_wildcards_and_equals_signs_in_its_own_name() -> None:
    assert bind_one((None,), "f32", "x=a*", **{"x=a*": IDS, "a1": IDS, "a2": IDS}).columns == ("x=a*",)
    assert bind_one((None,), "f32", "x=a*", **{"a*": IDS, "a1": IDS, "a2": IDS}).columns == ("a*",)


def test_a_single_value_feeds_an_open_length_only_when_chosen() -> None:
    with pytest.raises(ConfigError, match="no column can become input 'x'"):
        bind_one((None, None), "f32", a=IDS, b=IDS)

    assert bind_one((None, None), "f32", "a", a=IDS, b=IDS).row_shape == (1,)
    assert bind_one((None, None), "f32", "*", a=IDS, b=IDS).row_shape == (2,)


def test_every_input_of_a_model_finds_its_column() -> None:
    model = a_model(a_port("image", (None, 4)), a_port("age", (None, 1)), a_port("note", (None,), "string"))
    batch = sample(text=TEXT, years=IDS, picture=FLOATS)

    found = {binding.input_name: (binding.index, binding.columns) for binding in bind(model, batch)}

    assert found == {"image": (0, ("picture",)), "age": (1, ("years",)), "note": (2, ("text",))}


def test_a_column_with_the_name_of_one_input_is_not_in_question_for_another() -> None:
    model = a_model(a_port("a", (None, 4)), a_port("b", (None, 4)))

    assert [binding.columns for binding in bind(model, sample(b=FLOATS, c=FLOATS))] == [("c",), ("b",)]


def test_an_input_may_be_known_by_several_names() -> None:
    model = a_model(replace(a_port("x"), names=("x", "x:0")))

    assert bind(model, sample(**{"x:0": FLOATS, "other": FLOATS}))[0].columns == ("x:0",)
    assert bind(model, sample(**{"x:0": FLOATS, "other": FLOATS}), ["x:0=other"])[0].columns == ("other",)
    with pytest.raises(ConfigError, match="could be meant to take any of the columns 'x', 'x:0'"):
        bind(model, sample(**{"x": FLOATS, "x:0": FLOATS}))


def test_an_unnamed_option_goes_to_the_input_of_its_name_or_the_only_one_that_it_fits() -> None:
    model = a_model(a_port("a", (None, 4)), a_port("b", (None, 4)), a_port("c", (None, 1)))
    batch = sample(b=FLOATS, two=FLOATS, three=IDS, four=IDS)

    bindings = bind(model, batch, ["b", "three", "a=two"])

    assert [binding.columns for binding in bindings] == [("two",), ("b",), ("three",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["lable"],
            "--input 'lable': there is no column 'lable'; did you mean 'label'? the columns are: label (int64)",
        ),
        (["zz*"], "--input 'zz*': there is no column 'zz*'; the columns are: "),
        (["z=label"], "--input 'z=label': the model has no input 'z'; it has 'a', 'b'"),
        (["one"], "--input 'one': the model has the inputs 'a', 'b'; say which is meant, as in --input a=one"),
        (
            ["a=one", "a=two"],
            "--input 'a=two': input 'a' already takes 'one'; several columns of numbers make one input",
        ),
        (
            ["a=*"],
            "the 3 columns 'label' to 'two' cannot become input 'a' (f32[?,4]): 'label' and the others do not fit",
        ),
        (
            ["a=[ot]*"],
            "the 2 columns 'one' to 'two' cannot become input 'a' (f32[?,4]): 'one' holds lists; only columns",
        ),
    ],
)
def test_an_option_that_names_nothing_says_what_there_is(options: list[str], message: str) -> None:
    model = a_model(a_port("a", (None, 4)), a_port("b", (None, 4)))

    with pytest.raises(ConfigError) as raised:
        bind(model, sample(label=IDS, one=FLOATS, two=FLOATS), options)

    assert str(raised.value).startswith(message)


def test_long_lists_of_columns_are_cut() -> None:
    with pytest.raises(ConfigError, match=r"c11 \(string\) and 88 more"):
        bind_one((None,), "f32", **{f"c{at}": TEXT for at in range(100)})


def test_columns_that_are_no_input_are_kept_by_default() -> None:
    batch = sample(id=IDS, x=FLOATS, text=TEXT)

    assert kept_columns(batch.schema, ["x"], ["y"]) == ("id", "text")
    assert kept_columns(batch.schema, ["x"], ["y"], ["text", "x", "text"]) == ("text", "x")
    assert kept_columns(batch.schema, ["x"], ["y"], []) == ()


def test_a_kept_column_must_exist_and_may_not_have_the_name_of_an_output() -> None:
    schema = pa.schema({"id": pa.int64(), "y": pa.int64()})

    with pytest.raises(ConfigError, match=r"column 'yd' cannot be kept: there is no column 'yd'; did you mean"):
        kept_columns(schema, (), ["z"], ["yd"])
    with pytest.raises(ConfigError, match=r"column 'y' has the name of an output of the model.*--keep"):
        kept_columns(schema, (), ["y"])
    assert kept_columns(schema, (), ["y"], ["id"]) == ("id",)
