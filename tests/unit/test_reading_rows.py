import gzip
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring import parquet, text_blocks
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.reading import RowReader, read_sample
from ovray.scoring.records import Block, Rows, Unreadable
from tests.data_builders import (
    a_data_set,
    a_parquet_file,
    a_text_file,
    an_arrow_file,
    every_kind_of_column,
    read_all,
)


@pytest.mark.parametrize("rows_per_group", [1, 2, 3])
def test_columns_come_through_with_type_and_value_untouched(tmp_path: Path, rows_per_group: int) -> None:
    table = every_kind_of_column()
    path = a_parquet_file(tmp_path / "a.parquet", table, rows_per_group=rows_per_group)

    read = read_all(a_data_set(path), rows_per_batch=2)

    assert read.schema.equals(table.schema)
    assert read.schema.field("null").metadata[b"unit"] == b"none"
    # Compared as text, since NaN is not equal to itself.
    assert str(read.to_pylist()) == str(table.to_pylist())
    assert read.column("zoned").cast(pa.int64()).to_pylist() == [0, None, 2**60]


def test_what_pandas_noted_about_a_whole_file_is_left_behind(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2, 3]}, index=pd.RangeIndex(10, 13))
    frame.to_parquet(tmp_path / "a.parquet")

    data = a_data_set(tmp_path / "a.parquet")

    assert data.schema.metadata is None
    assert read_all(data).to_pydict() == {"n": [1, 2, 3]}


def test_only_the_columns_asked_for_are_read_in_their_order(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "a.b": [2], "c": [{"b": 3}]})
    data = a_data_set(a_parquet_file(tmp_path / "a.parquet", table))

    assert read_all(data, columns=["c", "a"]).to_pylist() == [{"c": {"b": 3}, "a": 1}]
    assert read_all(data, columns=["a.b"]).to_pylist() == [{"a.b": 2}]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_batches_are_bounded_and_know_their_rows(tmp_path: Path, name: str) -> None:
    table = pa.table({"n": range(100)})
    path = tmp_path / name
    if name.endswith(".csv"):
        a_text_file(path, "n\n" + "".join(f"{n}\n" for n in range(100)))
    else:
        a_parquet_file(path, table, rows_per_group=40)
    data = a_data_set(path)

    reader = RowReader(data.schema, rows_per_batch=16)
    read = [rows for rows in reader.read(data.slices(30, 95)) if isinstance(rows, Rows)]

    assert max(rows.batch.num_rows for rows in read) <= 16
    assert read[0].name_row(2) == f"{path}, row 32 (the first is 0)"
    for rows in read:
        assert rows.batch.column("n")[0].as_py() == rows.first_row


def test_a_slice_is_small_whatever_the_size_of_its_file(tmp_path: Path) -> None:
    data = a_data_set(a_parquet_file(tmp_path / "a.parquet", pa.table({"n": range(2000)}), rows_per_group=1))

    assert len(pickle.dumps(data.slices(1000, 1001))) < 1000


def test_chunks_that_go_upwards_decode_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_data_set(a_parquet_file(tmp_path / "a.parquet", pa.table({"n": range(100)}), rows_per_group=50))
    begun: list[int] = []
    begin = parquet.ParquetRows._begin

    def count(rows: parquet.ParquetRows, group: int) -> None:
        begun.append(group)
        begin(rows, group)

    monkeypatch.setattr(parquet.ParquetRows, "_begin", count)
    reader = RowReader(data.schema, rows_per_batch=8)

    for start in (0, 10, 13, 40, 45, 60, 60, 99):
        list(reader.read(data.slices(start, start + 1)))
    assert begun == [0, 1]

    list(reader.read(data.slices(50, 51)))
    assert begun == [0, 1, 1]


def test_chunks_within_a_block_of_csv_parse_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 64)
    data = a_data_set(a_text_file(tmp_path / "a.csv", "n\n" + "1\n" * 100))
    read: list[Block] = []
    text_of = text_blocks._SeekableText.read

    def count(text: text_blocks._SeekableText, block: Block) -> bytes:
        read.append(block)
        return text_of(text, block)

    monkeypatch.setattr(text_blocks._SeekableText, "read", count)
    reader = RowReader(data.schema, rows_per_batch=8)

    for start in range(100):
        list(reader.read(data.slices(start, start + 1)))

    assert read == list(data.files[0].blocks)
    assert len(read) > 2


def test_a_file_that_was_changed_meanwhile_is_named(tmp_path: Path) -> None:
    path = a_text_file(tmp_path / "a.csv", "n\n1\n")
    data = a_data_set(path)
    path.write_text("n\n1\n2\n")

    with pytest.raises(
        DataError, match=r"a\.csv' was changed while it was being scored: it had 4 bytes and now has 6"
    ):
        read_all(data)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    path = a_parquet_file(tmp_path / "a.parquet", pa.table({"n": [1]}))
    data = a_data_set(path)
    path.unlink()

    with pytest.raises(
        DataError, match=r"a\.parquet' is not there on host .*; every host that scores needs to see it"
    ):
        read_all(data)


def test_damage_inside_a_file_names_its_rows_and_leaves_the_reader_usable(tmp_path: Path) -> None:
    good = a_parquet_file(tmp_path / "good.parquet", pa.table({"n": range(100)}))
    bad = a_parquet_file(tmp_path / "bad.parquet", pa.table({"n": range(100)}))
    content = bytearray(bad.read_bytes())
    content[4:60] = b"\xff" * 56
    bad.write_bytes(content)
    data = a_data_set(bad, good)
    reader = RowReader(data.schema, rows_per_batch=100)

    (lost,) = reader.read(data.slices(0, 100))

    assert isinstance(lost, Unreadable)
    assert lost.rows == 100
    assert lost.problem.startswith("cannot be read: ")
    (rest,) = reader.read(data.slices(100, 200))
    assert isinstance(rest, Rows)
    assert rest.batch.num_rows == 100
    with pytest.raises(ConfigError, match=r"bad\.parquet, rows 0 to .*: cannot be read"):
        read_sample(data, ErrorOptions())


def test_a_sample_is_the_first_rows(tmp_path: Path) -> None:
    data = a_data_set(a_parquet_file(tmp_path / "a.parquet", pa.table({"n": range(100)})), limit=3)

    assert read_sample(data, ErrorOptions()).to_pydict() == {"n": [0, 1, 2]}


@pytest.mark.parametrize("name", ["a.arrow", "a.npz"])
def test_a_file_of_other_columns_than_before_is_named(tmp_path: Path, name: str) -> None:
    # given: a file that is replaced by one of the same size
    path = tmp_path / name
    for column in ("x", "y"):
        if name == "a.arrow":
            an_arrow_file(path, pa.table({column: [1, 2]}))
        else:
            np.savez(path, **{column: np.array([1, 2])})
        if column == "x":
            data = a_data_set(path)

    with pytest.raises(DataError, match=rf"rows 0 to 2 of '.*{name}' cannot be read: it holds "):
        read_all(data)


def test_a_packed_file_is_unpacked_whatever_options_its_url_has(tmp_path: Path) -> None:
    a_text_file(tmp_path / "a.csv.gz", gzip.compress(b"n\n1\n2\n"))

    data = a_data_set(f"file://{tmp_path}/a.csv.gz?use_mmap")

    assert read_all(data).to_pydict() == {"n": [1, 2]}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz"])
def test_a_url_is_read_like_a_path(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        a_parquet_file(tmp_path / name, pa.table({"n": range(100)}), rows_per_group=40)
    else:
        text = "n\n" + "".join(f"{n}\n" for n in range(100))
        a_text_file(tmp_path / name, gzip.compress(text.encode()) if name.endswith("gz") else text)

    data = a_data_set(f"file://{tmp_path}/{name}")

    assert read_all(data).column("n").to_pylist() == list(range(100))
