import gzip
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from ovray.errors import ConfigError
from ovray.scoring import text_blocks
from ovray.scoring.files import find_files
from ovray.scoring.inputs import inspect
from ovray.scoring.records import InputFile
from tests.data_builders import a_data_set, a_parquet_file, a_text_file, read_all


def look_into(path: Path, *, rows_wanted: int | None = None) -> InputFile:
    (ref,) = find_files([path])
    return inspect(ref, rows_wanted=rows_wanted)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Part CSV after a few records, as real files are parted after megabytes."""
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 16)
    monkeypatch.setattr(text_blocks, "MAX_RECORD_BYTES", 128)


def test_a_parquet_footer_gives_rows_types_and_row_groups(tmp_path: Path) -> None:
    path = a_parquet_file(tmp_path / "a.parquet", pa.table({"n": range(25)}), rows_per_group=10)

    file = look_into(path)

    assert (file.rows, file.size_bytes, file.schema) == (25, path.stat().st_size, pa.schema({"n": pa.int64()}))
    assert [(block.first_row, block.rows, block.position) for block in file.blocks] == [
        (0, 10, 0),
        (10, 10, 1),
        (20, 5, 2),
    ]
    assert file.modified_ns == path.stat().st_mtime_ns


def test_what_was_found_travels_between_processes(tmp_path: Path) -> None:
    file = look_into(a_text_file(tmp_path / "a.csv", "a,b\n1,x\n"))

    assert pickle.loads(pickle.dumps(file)) == file


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1,x\n2,y\n", {"a": [1, 2], "b": ["x", "y"]}),
        ("a,b\r\n1,x\r\n2,y\r\n", {"a": [1, 2], "b": ["x", "y"]}),
        ("a,b\n1,x\n2,y", {"a": [1, 2], "b": ["x", "y"]}),
        ("\ufeffa,b\n1,x\n2,y\n", {"a": [1, 2], "b": ["x", "y"]}),
        ("\n\na,b\n\n1,x\n\n2,y\n\n", {"a": [1, 2], "b": ["x", "y"]}),
        ('"a","b, c"\n1,"x\ny"\n2,"say ""so""\r\n"\n', {"a": [1, 2], "b, c": ["x\ny", 'say "so"\r\n']}),
        ('"a\nb",c\n1,2\n', {"a\nb": [1], "c": [2]}),
        (",b\n0,x\n", {"": [0], "b": ["x"]}),
        ("a,ü\n1,é\n", {"a": [1], "ü": ["é"]}),
        ("a,b\n1.5,NaN\n,inf\n", {"a": [1.5, None], "b": [float("nan"), float("inf")]}),
        ("a\n9007199254740993\n-1\n", {"a": [9007199254740993, -1]}),
        ("a,b\n,1\n,2\n", {"a": [None, None], "b": [1, 2]}),
        ("a,b\n1,true\n2,false\n", {"a": [1, 2], "b": [True, False]}),
        ('a,b\n1,5" pipe\n2,"5"" x\n1"""\n3,6"\n', {"a": [1, 2, 3], "b": ['5" pipe', '5" x\n1"', '6"']}),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("block_bytes", [3, 16, 1 << 20])
def test_csv_is_read_as_it_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    columns: dict[str, list[object]],
    name: str,
    block_bytes: int,
) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    content = text.encode()
    path = a_text_file(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)

    table = read_all(a_data_set(path))

    assert str(table.to_pydict()) == str(columns)


@pytest.mark.parametrize(
    ("cells", "together"),
    [
        (["1", ""], pa.int64()),
        (["", "1.5"], pa.float64()),
        (["1", "1.5"], pa.float64()),
        (["1", "x"], pa.string()),
        (["007", "x"], pa.string()),
        (["1.5", "x"], pa.string()),
        (["true", "1"], pa.string()),
        (["2024-01-01", "2024-01-01 10:00:00"], pa.timestamp("s")),
        (["2024-01-01", "1"], pa.string()),
        (["", ""], pa.null()),
    ],
)
def test_a_column_of_csv_has_one_type_in_all_blocks_and_files(
    tmp_path: Path, small_blocks: None, cells: list[str], together: pa.DataType
) -> None:
    # given: one file whose blocks look different, and two files that do
    records = [f"{cell},{'x' * 30}\n" for cell in cells]
    one = a_text_file(tmp_path / "one.csv", "a,filler\n" + "".join(records))
    first, second = (
        a_text_file(tmp_path / f"{at}.csv", "a,filler\n" + record) for at, record in enumerate(records)
    )

    as_blocks, as_files = a_data_set(one), a_data_set(first, second)

    assert as_blocks.schema.field("a").type == as_files.schema.field("a").type == together
    assert len(as_blocks.files[0].blocks) == 2
    assert read_all(as_blocks) == read_all(as_files)
    if together == pa.string():
        assert read_all(as_files).column("a").to_pylist() == cells


def test_blocks_of_csv_end_with_records_and_lose_none(tmp_path: Path, small_blocks: None) -> None:
    path = a_text_file(tmp_path / "a.csv", "n,text\n" + "".join(f'{n},"line\n{n}"\n' for n in range(20)))

    file = look_into(path)

    assert len(file.blocks) > 3
    assert file.rows == 20
    content = path.read_bytes()
    assert (
        b"".join(content[block.position :][: block.size_bytes] for block in file.blocks)
        == content[len("n,text\n") :]
    )


def test_csv_is_looked_into_only_as_far_as_rows_are_wanted(tmp_path: Path, small_blocks: None) -> None:
    path = a_text_file(tmp_path / "a.csv", "n,m\n" + "1,2\n" * 20 + "ragged\n")

    file = look_into(path, rows_wanted=5)

    assert 5 <= file.rows < 20


BAD_CONTENT = {
    "nothing.parquet": (b"", "'nothing.parquet' cannot be read as Parquet: Parquet file size is 0 bytes"),
    "noise.parquet": (b"x" * 100, "'noise.parquet' cannot be read as Parquet: Parquet magic bytes not found"),
    "nothing.csv": (b"", "'nothing.csv' is empty: a CSV file begins with a line of column names"),
    "blank.csv": (b"\n\r\n\n", "'blank.csv' is empty: a CSV file begins with a line of column names"),
    "header.csv": (b"a,b\n", "'header.csv' is empty: it holds no rows"),
    "short.csv": (b"a,b\n1,2\n\n3\n", "'short.csv', line 4: 1 fields where the header names 2 columns"),
    "first.csv": (b"a,b\n1\n2,3\n", "'first.csv', line 2: 1 fields where the header names 2 columns"),
    "latin-short.csv": (b"a,b\n1,2\n\xe9\n", "'latin-short.csv', line 3: byte 0xe9 is not UTF-8; convert"),
    "long.csv": (b"a,b\r\n1,2\r\n3,4,5\r\n", "'long.csv', line 3: 3 fields where the header names 2 columns"),
    "late.csv": (b"a,b\n" + b'1,"x\ny"\n' * 20 + b"3", "'late.csv', line 42: 1 fields where the header names 2"),
    "quote.csv": (
        b'a,b\n1,2\n1,"2\n' + b"1,2\n" * 99,
        "'quote.csv': the record that begins in line 3 does not end",
    ),
    "open.csv": (b'a,b\n1,2\n1,"2', "'open.csv', line 3: a quotation mark opens here that nothing closes"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "'twice.csv' names the column 'a' more than once"),
    "latin.csv": ("a,b\n1,é\n".encode("latin-1"), "'latin.csv', line 2: byte 0xe9 is not UTF-8; convert"),
    "latin-header.csv": (
        "a,é\n1,2\n".encode("latin-1"),
        "'latin-header.csv' does not begin with a line of column names",
    ),
    "mac.csv": (b"a\r1\r2\r", "'mac.csv' does not begin with a line of column names, in UTF-8, that ends with LF"),
    "utf16.csv": ("a,b\n1,2\n".encode("utf-16"), "'utf16.csv' is encoded in UTF-16"),
    "plain.csv.gz": (b"a,b\n1,2\n", "'plain.csv.gz' cannot be read as CSV: "),
    "cut.csv.gz": (gzip.compress(b"a,b\n1,2\n" * 100)[:-20], "'cut.csv.gz' cannot be read as CSV: "),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_a_damaged_or_empty_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None, name: str
) -> None:
    content, message = BAD_CONTENT[name]
    monkeypatch.chdir(tmp_path)
    a_text_file(Path(name), content)

    with pytest.raises(ConfigError) as raised:
        look_into(Path(name))

    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cut_bytes", [1, 4, 8, 100])
def test_a_cut_parquet_file_is_named(tmp_path: Path, cut_bytes: int) -> None:
    path = a_parquet_file(tmp_path / "cut.parquet", pa.table({"n": range(100)}))
    path.write_bytes(path.read_bytes()[:-cut_bytes])

    with pytest.raises(ConfigError, match=r"cut\.parquet' cannot be read as Parquet"):
        look_into(path)


def test_a_parquet_file_without_rows_is_named(tmp_path: Path) -> None:
    path = a_parquet_file(tmp_path / "none.parquet", pa.table({"n": pa.array([], pa.int64())}))

    with pytest.raises(ConfigError, match=r"none\.parquet' is empty: it holds no rows"):
        look_into(path)


def test_a_parquet_file_with_a_name_twice_is_named(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])

    with pytest.raises(ConfigError, match="more than one column named 'n'"):
        look_into(a_parquet_file(tmp_path / "twice.parquet", table))
