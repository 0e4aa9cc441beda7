"""Builds what the tests of scoring need again and again: files, data sets, models on paper."""

import datetime
import decimal
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ovray.errors import DataError
from ovray.replica.signature import Port, Signature
from ovray.scoring.bad_rows import BadRows, Stage
from ovray.scoring.dataset import DataSet
from ovray.scoring.files import find_files
from ovray.scoring.inputs import inspect
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.reading import RowReader
from ovray.scoring.records import Rows, Unreadable


def a_parquet_file(path: Path, table: pa.Table, *, rows_per_group: int = 1000) -> Path:
    """Write a table as Parquet."""
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def a_text_file(path: Path, text: str | bytes) -> Path:
    """Write text as it is, line ends untouched."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def an_arrow_file(
    path: Path, table: pa.Table, *, rows_per_batch: int = 1000, compression: str | None = None
) -> Path:
    """Write a table as an Arrow file; as a stream, where the name ends in ``.arrows``."""
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return path


def as_json_lines(table: pa.Table) -> bytes:
    """Write each row as one line of JSON, text beyond ASCII as it is."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in table.to_pylist())


def a_data_set(*inputs: str | Path, limit: int | None = None, on_error: OnError = OnError.RAISE) -> DataSet:
    """Find, inspect and join files."""
    return DataSet([inspect(ref, on_error=on_error) for ref in find_files(inputs)], limit=limit)


def read_all(data: DataSet, *, columns: Sequence[str] | None = None, rows_per_batch: int = 7) -> pa.Table:
    """Read a whole data set as a replica would."""
    schema = pa.schema([data.schema.field(name) for name in columns or data.schema.names])
    batches, bad = read_apart(data, schema, rows_per_batch=rows_per_batch)
    if bad.count:
        run = next(bad.runs())
        raise DataError(f"{bad.name_rows(run.start, run.stop)}: {run.problem}")
    return pa.Table.from_batches(batches, schema)


def read_apart(
    data: DataSet, schema: pa.Schema, *, rows_per_batch: int = 7
) -> tuple[list[pa.RecordBatch], BadRows]:
    """Read a whole data set; returns the rows that can be read, and account of the others."""
    slices = data.slices(0, data.rows)
    bad = BadRows((0, data.rows), slices, ErrorOptions(on_error=OnError.RECORD))
    batches: list[pa.RecordBatch] = []
    at = 0
    with closing(RowReader(schema, rows_per_batch=rows_per_batch)) as reader:
        for rows in reader.read(slices):
            if isinstance(rows, Unreadable):
                bad.add(at, at + rows.rows, Stage.READ, rows.problem)
                at += rows.rows
            else:
                batches.append(rows.batch)
                at += rows.batch.num_rows
    return batches, bad


def some_rows(columns: dict[str, pa.Array], *, first_row: int = 0) -> Rows:
    """Make rows of a file that is not there."""
    return Rows(file="rows.parquet", first_row=first_row, batch=pa.RecordBatch.from_pydict(columns))


def a_port(name: str = "x", shape: tuple[int | None, ...] | None = (None, 4), element_type: str = "f32") -> Port:
    """Make an input or output with one name."""
    return Port(name=name, names=(name,), shape=shape, element_type=element_type)


def a_model(*inputs: Port) -> Signature:
    """Make a model of these inputs, with one output ``y``."""
    return Signature(name="model", inputs=inputs, outputs=(a_port("y"),))


#: Arrow before 26, the last for Python 3.10, writes such nulls to Parquet but cannot read them.
NULL_OF_FIXED_SIZE = None if int(pa.__version__.split(".")[0]) >= 26 else [0, 0]


def every_kind_of_column() -> pa.Table:
    """Make three rows of every type that Parquet holds, with the values that are lost most easily."""
    columns = {
        "null": pa.nulls(3),
        "bool": pa.array([True, None, False]),
        "int64": pa.array([2**53 + 1, None, -(2**63)], pa.int64()),
        "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "float": pa.array([float("nan"), None, -0.0], pa.float64()),
        "half": pa.array(np.array([1.5, float("nan"), 65504], np.float16)),
        "decimal": pa.array(
            [decimal.Decimal("12345678901234567890.12"), None, decimal.Decimal("0.10")], pa.decimal128(30, 2)
        ),
        "string": pa.array(["", None, "é\n"]),
        "large": pa.array(["a", None, "b"], pa.large_string()),
        "binary": pa.array([b"\x00\xff", None, b""]),
        "date": pa.array([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)]),
        "time": pa.array([0, None, 86_399_999_999], pa.time64("us")),
        "zoned": pa.array([0, None, 2**60], pa.timestamp("ns", tz="Europe/Berlin")),
        "naive": pa.array([0, None, 1], pa.timestamp("ms")),
        "duration": pa.array([1, None, -1], pa.duration("ns")),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), ["x", "y"]),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int16())),
        "fixed": pa.array([[1, 2], NULL_OF_FIXED_SIZE, [3, 4]], pa.list_(pa.uint8(), 2)),
        "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "not_null": pa.array([1, 2, 3]),
        "dotted.name": pa.array([1, 2, 3]),
    }
    fields = [pa.field(name, column.type, nullable=name != "not_null") for name, column in columns.items()]
    fields[0] = fields[0].with_metadata({"unit": "none"})
    return pa.table(list(columns.values()), schema=pa.schema(fields))
