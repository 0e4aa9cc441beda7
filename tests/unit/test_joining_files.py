from pathlib import Path

import pyarrow as pa
import pytest

from ovray.errors import ConfigError
from tests.data_builders import a_data_set, a_parquet_file, a_text_file, read_all


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_are_counted_through_all_files(here: Path) -> None:
    first = a_parquet_file(Path("b.parquet"), pa.table({"n": range(5)}), rows_per_group=2)
    second = a_parquet_file(Path("a.parquet"), pa.table({"n": range(5, 8)}), rows_per_group=2)

    data = a_data_set(first, second)

    assert data.rows == 8
    assert data.cheap_cuts == (0, 2, 4, 5, 7, 8)
    assert [(one.ref.name, one.start, one.stop) for one in data.slices(3, 7)] == [
        ("b.parquet", 3, 5),
        ("a.parquet", 0, 2),
    ]
    assert [[block.position for block in one.blocks] for one in data.slices(3, 7)] == [[1, 2], [0]]
    assert data.slices(8, 8) == data.slices(2, 2) == ()


@pytest.mark.parametrize(
    ("limit", "rows", "cuts", "files"),
    [(1, 1, (0, 1), 1), (5, 5, (0, 2, 4, 5), 1), (6, 6, (0, 2, 4, 5, 6), 2), (99, 8, (0, 2, 4, 5, 7, 8), 2)],
)
def test_a_limit_keeps_the_first_rows(
    here: Path, limit: int, rows: int, cuts: tuple[int, ...], files: int
) -> None:
    first = a_parquet_file(Path("1.parquet"), pa.table({"n": range(5)}), rows_per_group=2)
    second = a_parquet_file(Path("2.parquet"), pa.table({"n": range(5, 8)}), rows_per_group=2)

    data = a_data_set(first, second, limit=limit)

    assert (data.rows, data.cheap_cuts, len(data.files)) == (rows, cuts, files)
    assert read_all(data).column("n").to_pylist() == list(range(8))[:limit]


def test_rows_beyond_the_data_set_are_refused(here: Path) -> None:
    data = a_data_set(a_parquet_file(Path("a.parquet"), pa.table({"n": [1, 2]})), limit=1)

    with pytest.raises(ValueError, match="rows 0 to 2 are not within the 1 rows"):
        data.slices(0, 2)


def test_a_limit_below_one_is_refused(here: Path) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        a_data_set(a_parquet_file(Path("a.parquet"), pa.table({"n": [1]})), limit=0)


def test_files_may_order_their_columns_differently(here: Path) -> None:
    first = a_parquet_file(Path("1.parquet"), pa.table({"a": [1], "b": ["x"]}))
    second = a_parquet_file(Path("2.parquet"), pa.table({"b": ["y"], "a": [2]}))
    third = a_text_file(Path("3.csv"), "b,a\nz,3\n")

    assert read_all(a_data_set(first, second, third)).to_pydict() == {"a": [1, 2, 3], "b": ["x", "y", "z"]}


def test_a_column_of_nulls_takes_the_type_that_it_has_elsewhere(here: Path) -> None:
    nulls = a_parquet_file(Path("1.parquet"), pa.table({"a": pa.nulls(2)}))
    lists = a_parquet_file(Path("2.parquet"), pa.table({"a": [[1, 2]]}))

    assert read_all(a_data_set(nulls, lists)).to_pydict() == {"a": [None, None, [1, 2]]}
    assert read_all(a_data_set(lists, nulls)).to_pydict() == {"a": [[1, 2], None, None]}


def test_categories_may_be_counted_by_indices_of_different_width(here: Path) -> None:
    narrow, wide = (
        pa.array(["a", None]).dictionary_encode().cast(pa.dictionary(kind, pa.string()))
        for kind in (pa.int8(), pa.int16())
    )
    first = a_parquet_file(Path("1.parquet"), pa.table({"c": narrow}))
    second = a_parquet_file(Path("2.parquet"), pa.table({"c": wide}))

    for data in (a_data_set(first, second), a_data_set(second, first)):
        assert data.schema.field("c").type == wide.type
        assert read_all(data).column("c").to_pylist() == ["a", None, "a", None]


@pytest.mark.parametrize("order", [("whole.csv", "real.parquet"), ("real.parquet", "whole.csv")])
def test_whole_numbers_of_csv_may_be_the_floats_of_parquet(here: Path, order: tuple[str, str]) -> None:
    a_parquet_file(Path("real.parquet"), pa.table({"a": pa.array([1.5], pa.float32())}))
    a_text_file(Path("whole.csv"), "a\n2\n")

    data = a_data_set(*map(Path, order))

    assert data.schema.field("a").type == pa.float32()
    assert sorted(read_all(data).column("a").to_pylist()) == [1.5, 2.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.parquet", {"a": [1]}, "'b.parquet' has no column 'b', 'a.parquet' has"),
        ("b.parquet", {"a": [1], "b": ["x"], "c": [1]}, "'a.parquet' has no column 'c', 'b.parquet' has"),
        ("b.parquet", {"a": [1.5], "b": ["x"]}, "column 'a' is int64 in 'a.parquet' but double in 'b.parquet'"),
        ("b.csv", "a,b\nz,x\n", "column 'a' is int64 in 'a.parquet' but string in 'b.csv'"),
    ],
)
def test_files_that_do_not_go_together_are_named(here: Path, name: str, content: object, message: str) -> None:
    first = a_parquet_file(Path("a.parquet"), pa.table({"a": [1], "b": ["x"]}))
    path = Path(name)
    other = a_text_file(path, content) if isinstance(content, str) else a_parquet_file(path, pa.table(content))

    with pytest.raises(ConfigError) as raised:
        a_data_set(first, first, other)

    assert str(raised.value).startswith(message)
