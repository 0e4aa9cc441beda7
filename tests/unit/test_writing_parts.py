import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from ovray.errors import ConfigError, DataError, InvariantError
from ovray.scoring import parts, result_formats
from ovray.scoring.parts import PartWriter, part_name, part_range, prepare_folder, remove_unfinished
from tests.data_builders import every_kind_of_column

SCHEMA = pa.schema({"n": pa.int64()})


def a_batch(start: int, stop: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": range(start, stop)}, schema=SCHEMA)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_name_of_a_part_states_its_rows() -> None:
    assert part_name(0, 4096) == "part-000000000000-000000004096.parquet"
    assert part_range(part_name(7, 10**13)) == (7, 10**13)
    assert part_range("part-0.parquet") is None
    assert part_range(".part-000000000000-000000004096.parquet.abc") is None


def test_pandas_reads_the_folder_in_the_order_of_rows(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "out")
    for start, stop in ((100, 1000), (0, 9), (9, 100)):
        with PartWriter(folder, start, stop, SCHEMA) as part:
            part.write_batch(a_batch(start, stop))
            part.commit()
    (tmp_path / "out" / "_ovray.json").write_text("{}")

    assert pd.read_parquet(tmp_path / "out")["n"].tolist() == list(range(1000))


def test_many_small_batches_become_one_row_group(tmp_path: Path) -> None:
    with PartWriter(prepare_folder(tmp_path), 0, 100, SCHEMA) as part:
        for start in range(0, 100, 10):
            part.write_batch(a_batch(start, start + 10))
        size_bytes = part.commit()

    file = tmp_path / part.name
    assert size_bytes == file.stat().st_size
    assert pq.ParquetFile(file).metadata.num_row_groups == 1
    assert pq.read_table(file).column("n").to_pylist() == list(range(100))


def test_columns_are_written_with_type_and_value_untouched(tmp_path: Path) -> None:
    table = every_kind_of_column()

    with PartWriter(prepare_folder(tmp_path), 0, 3, table.schema) as part:
        for batch in table.to_batches(max_chunksize=2):
            part.write_batch(batch)
        part.commit()

    read = pq.read_table(tmp_path / part.name)
    assert read.schema.equals(table.schema)
    assert str(read.to_pylist()) == str(table.to_pylist())


def test_batches_whose_categories_do_not_fit_together_stay_readable(tmp_path: Path) -> None:
    # given: categories as pandas makes them, counted by int8, from files that have their own
    kind = pa.dictionary(pa.int8(), pa.string())
    texts = [f"text {at // 2}" for at in range(400)]
    schema = pa.schema({"s": kind})

    with PartWriter(prepare_folder(tmp_path), 0, 400, schema) as part:
        for start in range(0, 400, 50):
            column = pa.array(texts[start : start + 50]).dictionary_encode().cast(kind)
            part.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))
        part.commit()

    assert pq.read_table(tmp_path / part.name).column("s").to_pylist() == texts
    assert pd.read_parquet(tmp_path)["s"].tolist() == texts
    assert pq.ParquetFile(tmp_path / part.name).metadata.num_row_groups == 2


def test_what_is_held_back_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_formats, "_ROW_GROUP_BYTES", 8 * 30)

    with PartWriter(prepare_folder(tmp_path), 0, 100, SCHEMA) as part:
        for start in range(0, 100, 10):
            part.write_batch(a_batch(start, start + 10))
        part.commit()

    metadata = pq.ParquetFile(tmp_path / part.name).metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [30, 30, 30, 10]


def test_a_part_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with PartWriter(prepare_folder(tmp_path), 0, 2, SCHEMA) as part:
        part.write_batch(a_batch(0, 2))
        assert all(name.startswith(".") for name in names(tmp_path))
        part.commit()
        assert names(tmp_path) == [part.name]

    assert names(tmp_path) == [part.name]


def test_a_part_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)

    with PartWriter(folder, 0, 2, SCHEMA) as part:
        part.write_batch(a_batch(0, 2))

    assert names(tmp_path) == []


def test_a_part_with_other_rows_than_its_name_says_is_never_committed(tmp_path: Path) -> None:
    with PartWriter(prepare_folder(tmp_path), 0, 2, SCHEMA) as part:
        part.write_batch(a_batch(0, 1))
        with pytest.raises(InvariantError, match=r"part-0{12}-0{11}2\.parquet was to hold 2 rows, but holds 1"):
            part.commit()

    assert names(tmp_path) == []


def test_the_same_part_written_twice_at_once_is_whole(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)

    with PartWriter(folder, 0, 2, SCHEMA) as one, PartWriter(folder, 0, 2, SCHEMA) as other:
        one.write_batch(a_batch(0, 2))
        other.write_batch(a_batch(0, 2))
        one.commit()
        other.commit()

    assert names(tmp_path) == [one.name]
    assert pq.read_table(tmp_path / one.name).num_rows == 2


def test_a_part_that_cannot_be_written_names_itself_and_the_folder(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "out")
    os.rmdir(tmp_path / "out")

    with (
        pytest.raises(DataError, match=r"part-0+-0+2\.parquet cannot be written to '.*out'"),
        PartWriter(folder, 0, 2, SCHEMA),
    ):
        pass


def test_a_url_takes_parts_too(tmp_path: Path) -> None:
    folder = prepare_folder(f"file://{tmp_path}")

    with PartWriter(folder, 0, 2, SCHEMA) as part:
        part.write_batch(a_batch(0, 2))
        part.commit()

    assert names(tmp_path) == [part.name]


def test_an_object_store_gets_a_part_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file system whose name is neither that of a disk nor of HDFS is taken for an object store.
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    monkeypatch.setattr(parts, "resolve", lambda location: (store, "bucket"))
    (tmp_path / "bucket").mkdir()
    folder = parts.OutputFolder(name="store://bucket", location="store://bucket")

    with PartWriter(folder, 0, 2, SCHEMA) as part:
        part.write_batch(a_batch(0, 2))
        assert names(tmp_path / "bucket") == []
        size_bytes = part.commit()

    assert names(tmp_path / "bucket") == [part.name]
    assert (tmp_path / "bucket" / part.name).stat().st_size == size_bytes
    assert pq.read_table(tmp_path / "bucket" / part.name).num_rows == 2


def test_a_folder_made_for_nothing_goes_away_again(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()

    folder.remove_if_unused()

    assert names(tmp_path) == []


def test_a_folder_that_was_there_or_is_used_stays(tmp_path: Path) -> None:
    there, used = prepare_folder(tmp_path), prepare_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / part_name(0, 1)).touch()

    used.remove_if_unused()
    there.remove_if_unused()

    assert names(tmp_path / "a" / "b") == [part_name(0, 1)]


def test_what_a_killed_run_left_unfinished_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f".{part_name(0, 1)}.0123abcd").touch()
    (tmp_path / "_ovray.json").touch()

    prepare_folder(tmp_path)

    assert len(names(tmp_path)) == 2


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = prepare_folder(tmp_path)
    for name in (f".{part_name(0, 1)}.0123abcd", part_name(0, 1), "_ovray.json", ".hidden"):
        (tmp_path / name).touch()

    remove_unfinished(folder)

    assert names(tmp_path) == [".hidden", "_ovray.json", part_name(0, 1)]


def test_a_writer_that_takes_its_own_away_meanwhile_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: a file that is listed and gone before it can be removed
    class Listing(pafs.LocalFileSystem):
        def get_file_info(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
            return [pafs.FileInfo(f"{tmp_path}/.{part_name(0, 1)}.0123abcd", pafs.FileType.File)]

    monkeypatch.setattr(parts, "resolve", lambda location: (Listing(), location))

    remove_unfinished(parts.OutputFolder(name="out", location=str(tmp_path)))


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (
            ["thesis.tex"],
            "output 'out' holds something else: thesis.tex; name a new or empty folder with --output",
        ),
        ([".git", "a", "b", "c", "d"], "output 'out' holds something else: .git, a, b and 2 more;"),
        ([part_name(0, 1), "a"], "output 'out' holds something else: a;"),
    ],
)
def test_a_folder_that_holds_something_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("out")
    for name in present:
        Path("out", name).touch()

    with pytest.raises(ConfigError) as raised:
        prepare_folder("out")

    assert str(raised.value).startswith(message)
    assert names(tmp_path / "out") == sorted(present)


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()

    with pytest.raises(ConfigError, match="output 'file' is a file"):
        prepare_folder("file")
    with pytest.raises(ConfigError, match="output 'file/out' cannot be written: "):
        prepare_folder("file/out")
    with pytest.raises(ConfigError, match="output '/proc/out' cannot be written: "):
        prepare_folder("/proc/out")
    with pytest.raises(ConfigError, match="output 'ftp://host/out' cannot be written: Unrecognized filesystem"):
        prepare_folder("ftp://host/out")
    assert names(tmp_path) == ["file"]


def test_a_column_that_parquet_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    schema = pa.schema({"s": pa.month_day_nano_interval()})

    with (
        pytest.raises(DataError, match="cannot be written to"),
        PartWriter(prepare_folder(tmp_path), 0, 2, schema),
    ):
        pass

    assert names(tmp_path) == []
