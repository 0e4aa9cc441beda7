import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.done_rows import whole
from ovray.scoring.parts import OutputFolder, PartWriter, prepare_folder
from ovray.scoring.result_formats import ResultFormat, check_columns
from tests.data_builders import every_kind_of_column

CSV, ARROW = ResultFormat.CSV, ResultFormat.ARROW
IN_CSV_THERE_IS_NO = {"binary", "struct", "map"}


def write(folder: OutputFolder, start: int, table: pa.Table, *, rows_per_batch: int = 1000) -> Path:
    with PartWriter(folder, start, start + table.num_rows, table.schema) as part:
        for batch in table.to_batches(max_chunksize=rows_per_batch):
            part.write_batch(batch)
        part.commit()
    return Path(folder.location, part.name)


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def test_arrow_files_hold_every_type_and_value_untouched(tmp_path: Path) -> None:
    table = every_kind_of_column()

    path = write(prepare_folder(tmp_path, ARROW), 0, table, rows_per_batch=2)

    assert path.name == "part-000000000000-000000000003.arrow"
    read = pa.ipc.open_file(path).read_all()
    assert read.schema.equals(table.schema, check_metadata=True)
    assert str(read.to_pylist()) == str(table.to_pylist())
    assert pa.feather.read_table(path).num_rows == 3


def test_parquet_files_have_dictionaries_of_what_recurs_and_of_nothing_else(tmp_path: Path) -> None:
    rows = 3000
    table = pa.table(
        {
            "id": np.arange(rows),
            "class": np.arange(rows) % 10,
            "path": [f"pictures/{row}.jpg" for row in range(rows)],
            "label": ["cat", "dog", "fox"] * (rows // 3),
            "score": np.ones(rows, np.float32),
        }
    )

    path = write(prepare_folder(tmp_path), 0, table, rows_per_batch=1000)

    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    with_dictionary = [one.path_in_schema for one in columns if "RLE_DICTIONARY" in one.encodings]
    assert with_dictionary == ["class", "label"]
    assert pq.read_table(path).equals(table)


def test_arrow_files_share_one_dictionary_among_batches_that_have_their_own(tmp_path: Path) -> None:
    schema = pa.schema({"s": pa.dictionary(pa.int8(), pa.string())})
    batches = [
        pa.RecordBatch.from_arrays([pa.array(texts).dictionary_encode().cast(schema.field(0).type)], schema=schema)
        for texts in (["a", "b"], ["c", "b"], ["d"])
    ]

    path = write(prepare_folder(tmp_path, ARROW), 0, pa.Table.from_batches(batches))

    assert pa.ipc.open_file(path).read_all()["s"].to_pylist() == ["a", "b", "c", "b", "d"]


def test_a_part_whose_categories_are_too_many_for_one_dictionary_says_so(tmp_path: Path) -> None:
    schema = pa.schema({"s": pa.dictionary(pa.int8(), pa.string())})
    batches = [
        pa.RecordBatch.from_arrays(
            [pa.array([f"{first + at}" for at in range(100)]).dictionary_encode().cast(schema.field(0).type)],
            schema=schema,
        )
        for first in (0, 100)
    ]

    with pytest.raises(DataError, match=r"part-0+-0+200\.arrow cannot be written"):
        write(prepare_folder(tmp_path, ARROW), 0, pa.Table.from_batches(batches))

    assert list(tmp_path.iterdir()) == []


def test_csv_has_a_line_of_names_and_what_pandas_reads(tmp_path: Path) -> None:
    table = every_kind_of_column().drop_columns(list(IN_CSV_THERE_IS_NO))

    path = write(prepare_folder(tmp_path, CSV), 0, table, rows_per_batch=2)

    assert path.name == "part-000000000000-000000000003.csv"
    read = read_csv(path)
    assert list(read.columns) == table.column_names
    for name in ("int64", "uint64", "decimal", "dictionary", "not_null", "dotted.name"):
        assert read[name].tolist() == ["" if one is None else str(one) for one in table[name].to_pylist()]
    assert read["string"].tolist() == ["", "", "é\n"]
    assert pd.read_csv(path)["float"].tolist()[2] == 0.0


def test_lists_become_json_in_csv(tmp_path: Path) -> None:
    scores = np.array([[0.1, np.nan], [np.inf, -0.0]], np.float32)
    lists = {
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(scores.reshape(-1), from_pandas=False), 2),
        "ragged": pa.array([[1, None], []], pa.list_(pa.int16())),
        "null": pa.array([None, [True]], pa.list_(pa.bool_())),
        "texts": pa.array([['say "é"', "a,b\n"], [None]], pa.list_(pa.string())),
        "nested": pa.array([[[1], [2, 3]], [None, []]], pa.list_(pa.list_(pa.int64()))),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8, dtype=np.uint8).reshape(2, 2, 2)),
    }

    path = write(prepare_folder(tmp_path, CSV), 0, pa.table(lists))

    read = read_csv(path)
    assert read["fixed"].tolist() == ["[0.1,NaN]", "[Infinity,-0]"]
    assert np.float32(json.loads(read["fixed"][0])[0]) == np.float32(0.1)
    assert read["ragged"].tolist() == ["[1,null]", "[]"]
    assert read["null"].tolist() == ["", "[true]"]
    assert [json.loads(cell) for cell in read["texts"]] == lists["texts"].to_pylist()
    assert [json.loads(cell) for cell in read["nested"]] == lists["nested"].to_pylist()
    assert json.loads(read["tensor"][1]) == [4, 5, 6, 7]


def test_slices_of_lists_become_their_own_rows_in_csv(tmp_path: Path) -> None:
    table = pa.table(
        {"y": pa.array([[1], [2, 3], None, [4]]), "z": pa.array([[1], [2], [3], [4]], pa.list_(pa.int8(), 1))}
    )

    path = write(prepare_folder(tmp_path, CSV), 0, table.slice(1, 2))

    assert path.read_text() == '"y","z"\n"[2,3]","[2]"\n,"[3]"\n'


@pytest.mark.parametrize("name", sorted(IN_CSV_THERE_IS_NO))
def test_columns_without_a_form_in_csv_are_named_before_anything_starts(name: str) -> None:
    table = every_kind_of_column()

    with pytest.raises(ConfigError) as raised:
        check_columns(CSV, table.select(["int64", name]).schema)

    assert str(raised.value).startswith(f"--format csv: column {name!r} ({table.schema.field(name).type}) has no")
    check_columns(CSV, table.drop_columns(list(IN_CSV_THERE_IS_NO)).schema)
    check_columns(ARROW, table.schema)


@pytest.mark.parametrize("result_format", [CSV, ARROW])
def test_parts_that_were_cut_short_anywhere_do_not_count(tmp_path: Path, result_format: ResultFormat) -> None:
    folder = prepare_folder(tmp_path, result_format)
    table = pa.table({"text": ['a,"b"', "line\nbreak", None], "n": [1.25, None, 3.5]})
    path = write(folder, 0, table)
    content = path.read_bytes()
    assert [part.rows for part in whole(folder, [(0, 3)])] == [(0, 3)]

    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert whole(folder, [(0, 3)]) == [], size


def test_csv_of_more_than_one_block_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare_folder(tmp_path, CSV)
    path = write(folder, 5, pa.table({"text": ['"', "\n", '\n"\n', "", None]}))
    assert path.name == "part-000000000005-000000000010.csv"

    for block_bytes in range(1, 20):
        monkeypatch.setattr("ovray.scoring.result_formats._COUNTED_BYTES", block_bytes)
        assert [part.rows for part in whole(folder, [(5, 10)])] == [(5, 10)]


def test_a_format_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--format 'xlsx': give one of parquet, csv, arrow"):
        ResultFormat.parse("xlsx")
