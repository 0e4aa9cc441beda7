from pathlib import Path

import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring import arrow_files
from ovray.scoring.reading import RowReader
from tests.data_builders import a_data_set, a_text_file, an_arrow_file, every_kind_of_column, read_all


@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.ipc", "a.arrows"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("rows_per_batch", [1, 2, 3])
def test_columns_come_through_with_type_and_value_untouched(
    tmp_path: Path, name: str, compression: str | None, rows_per_batch: int
) -> None:
    table = every_kind_of_column()
    path = an_arrow_file(tmp_path / name, table, rows_per_batch=rows_per_batch, compression=compression)

    read = read_all(a_data_set(path), rows_per_batch=2)

    assert read.schema.equals(table.schema)
    assert read.schema.field("null").metadata[b"unit"] == b"none"
    # Compared as text, since NaN is not equal to itself.
    assert str(read.to_pylist()) == str(table.to_pylist())


def test_a_tensor_column_stays_one(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 2))
    tensors = pa.ExtensionArray.from_storage(kind, pa.array([[1, 2, 3, 4]], kind.storage_type))
    path = an_arrow_file(tmp_path / "a.arrow", pa.table({"t": tensors}))

    assert read_all(a_data_set(path)).column("t").type == kind


def test_record_batches_are_blocks_and_empty_ones_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    batches = [pa.record_batch({"n": pa.array(values, pa.int64())}) for values in ([], [1, 2], [], [3])]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)

    (file,) = a_data_set(path).files

    assert [(block.first_row, block.rows, block.position) for block in file.blocks] == [(0, 2, 1), (2, 1, 3)]


def test_what_pandas_noted_about_a_whole_file_is_left_behind(tmp_path: Path) -> None:
    table = pa.table({"n": [1]}).replace_schema_metadata({"pandas": "{}"})

    assert a_data_set(an_arrow_file(tmp_path / "a.feather", table)).schema.metadata is None


def test_only_the_columns_asked_for_are_read_in_their_order(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "b": [2], "c": [{"d": 3}]})
    data = a_data_set(an_arrow_file(tmp_path / "a.arrow", table))

    assert read_all(data, columns=["c", "a"]).to_pylist() == [{"c": {"d": 3}, "a": 1}]


def test_chunks_that_go_upwards_go_through_a_stream_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = a_data_set(an_arrow_file(tmp_path / "a.arrows", pa.table({"n": range(100)}), rows_per_batch=10))
    begun: list[None] = []
    begin = arrow_files._StreamBatches._begin

    def count(batches: arrow_files._StreamBatches) -> None:
        begun.append(None)
        begin(batches)

    monkeypatch.setattr(arrow_files._StreamBatches, "_begin", count)
    reader = RowReader(data.schema, rows_per_batch=4)

    for start in (0, 7, 30, 31, 99):
        (rows,) = reader.read(data.slices(start, start + 1))
        assert rows.batch.column("n").to_pylist() == [start]
    assert len(begun) == 1

    (rows,) = reader.read(data.slices(5, 6))
    assert rows.batch.column("n").to_pylist() == [5]
    assert len(begun) == 2


@pytest.mark.parametrize("name", ["cut.arrow", "cut.arrows"])
@pytest.mark.parametrize("left", [0, 3, 8, 100, 0.5, -1])
def test_a_cut_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, left: int | float
) -> None:
    monkeypatch.chdir(tmp_path)
    path = an_arrow_file(Path(name), pa.table({"n": range(100)}), rows_per_batch=40)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])

    with pytest.raises(ConfigError) as raised:
        a_data_set(path)

    assert str(raised.value).startswith(f"'{name}' cannot be read as Arrow: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x" * 100, "it begins like neither a file nor a stream of Arrow"),
        (b"FEA1" + b"x" * 96, "it is of Feather's version 1, which is no Arrow; write it again in version 2"),
        (b"ARROW1\0\0" + b"x" * 92, "Not an Arrow file"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"other\.arrow' cannot be read as Arrow: {reason}"):
        a_data_set(a_text_file(tmp_path / "other.arrow", content))


@pytest.mark.parametrize("table", [pa.table({"n": pa.array([], pa.int64())}), pa.table({})])
def test_a_file_without_rows_is_named(tmp_path: Path, table: pa.Table) -> None:
    with pytest.raises(ConfigError, match=r"none\.arrow' is empty: it holds no rows"):
        a_data_set(an_arrow_file(tmp_path / "none.arrow", table))


def test_damaged_values_are_refused_before_they_end_the_process(tmp_path: Path) -> None:
    # given: text whose second offset points far behind the text
    path = an_arrow_file(tmp_path / "a.arrow", pa.table({"n": [1, 2], "text": ["abc", "defg"]}))
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 3, 7))
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, offsets[:4] + b"\xff\xff\xff\x7f" + offsets[8:]))
    data = a_data_set(path)

    with pytest.raises(DataError, match=r"a\.arrow, row 0 \(the first is 0\): cannot be read: "):
        read_all(data)
