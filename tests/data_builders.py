"""Builds what the tests of scoring need again and again: files, data sets, models on paper."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ovray.replica.model import Port, Signature
from ovray.scoring.dataset import DataSet
from ovray.scoring.files import find_files
from ovray.scoring.inputs import inspect
from ovray.scoring.reading import RowReader
from ovray.scoring.records import Rows


def a_parquet_file(path: Path, table: pa.Table, *, rows_per_group: int = 1000) -> Path:
    """Write a table as Parquet."""
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def a_text_file(path: Path, text: str | bytes) -> Path:
    """Write text as it is, line ends untouched."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def a_data_set(*inputs: Path, limit: int | None = None) -> DataSet:
    """Find, inspect and join files."""
    return DataSet([inspect(ref) for ref in find_files(inputs)], limit=limit)


def read_all(data: DataSet, *, columns: Sequence[str] | None = None, rows_per_batch: int = 7) -> pa.Table:
    """Read a whole data set as a replica would."""
    schema = pa.schema([data.schema.field(name) for name in columns or data.schema.names])
    reader = RowReader(schema, rows_per_batch=rows_per_batch)
    batches = [rows.batch for rows in reader.read(data.slices(0, data.rows))]
    reader.close()
    return pa.Table.from_batches(batches, schema)


def some_rows(columns: dict[str, pa.Array], *, first_row: int = 0) -> Rows:
    """Make rows of a file that is not there."""
    return Rows(file="rows.parquet", first_row=first_row, batch=pa.RecordBatch.from_pydict(columns))


def a_port(name: str = "x", shape: tuple[int | None, ...] | None = (None, 4), element_type: str = "f32") -> Port:
    """Make an input or output with one name."""
    return Port(name=name, names=(name,), shape=shape, element_type=element_type)


def a_model(*inputs: Port) -> Signature:
    """Make a model of these inputs, with one output ``y``."""
    return Signature(name="model", inputs=inputs, outputs=(a_port("y"),))
