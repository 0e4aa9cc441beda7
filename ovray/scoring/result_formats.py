"""Writes results as Parquet, CSV or Arrow, and counts the rows of such files again.

A new format is a writer and a counter, and a line in each table below.  May not enter: names of files, folders,
when a file is complete (parts.py).
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ovray.errors import ConfigError
from ovray.scoring.csv_cells import can_be_cells, cells_schema, to_cells

#: What one row group holds, as Arrow; so much is held back in memory until it is written.
_ROW_GROUP_BYTES = 64 * 1024 * 1024

#: Indices of so many bits count more values than a row group has rows.
_WIDE_INDEX_BITS = 32

#: Measured on a million rows of labels, text and class probabilities: zstd gives files 17 % smaller for a third
#: more time, which is taken from inference.
_COMPRESSION = "snappy"

#: Types whose first values are looked at: ids and time stamps do not recur, classes and places do.  A dictionary
#: of values that do not recur costs two or three times as much as all else of a file.
_SAMPLED = (
    pa.types.is_integer,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
)
_SAMPLE_ROWS = 1024

_COUNTED_BYTES = 8 * 1024 * 1024


class ResultFormat(Enum):
    """Names a format as ``--format`` takes it."""

    PARQUET = "parquet"
    CSV = "csv"
    ARROW = "arrow"

    @staticmethod
    def parse(text: str) -> "ResultFormat":
        """Read what a caller wrote.  Raises ConfigError where it is no format."""
        try:
            return ResultFormat(text)
        except ValueError:
            known = ", ".join(one.value for one in ResultFormat)
            raise ConfigError(f"--format {text!r}: give one of {known}") from None

    @property
    def ending(self) -> str:
        """The end of a file's name."""
        return f".{self.value}"


class FileWriter(Protocol):
    """Writes one file.

    Lifetime: batches may be held; memory that they look into must stay as it is until ``close`` returns.
    """

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows, with the columns of the schema."""

    def close(self) -> None:
        """Complete the file; once more does nothing."""


def open_writer(result_format: ResultFormat, sink: pa.NativeFile, schema: pa.Schema) -> FileWriter:
    """Begin a file.  Raises ArrowException for a type that the format lacks."""
    return _WRITERS[result_format](sink, schema)


def try_encoding(result_format: ResultFormat, rows: pa.RecordBatch) -> None:
    """Write rows to nowhere.  Raises ArrowException where they cannot be in a file of a format."""
    sink = pa.BufferOutputStream()
    writer = open_writer(result_format, sink, rows.schema)
    writer.write_batch(rows)
    writer.close()


def rows_in(result_format: ResultFormat, file: pa.NativeFile) -> int | None:
    """Return how many rows a file holds; ``None`` where it is seen to be damaged.

    Parquet and Arrow count them at their ends; CSV is read through.  Raises OSError or ArrowException as pyarrow
    does, for damage too.
    """
    return _COUNTERS[result_format](file)


def check_columns(result_format: ResultFormat, schema: pa.Schema) -> None:
    """Raise ConfigError where a column cannot be in files of a format."""
    if result_format is not ResultFormat.CSV:
        return
    for field in schema:
        if not can_be_cells(field.type):
            raise ConfigError(
                f"--format csv: column {field.name!r} ({field.type}) has no form in CSV; leave it out with --keep"
                " or --outputs, or choose parquet or arrow"
            )


class _ParquetWriter:
    """Gathers batches into row groups."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema) -> None:
        pq.ParquetWriter(pa.BufferOutputStream(), schema).close()  # raises for a type that Parquet lacks
        self._sink = sink
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        #: For each dictionary column, the different values in ``_pending``.
        self._dictionaries: dict[str, pa.Array] = {}
        #: Begun with the first rows: they show how the file is best written.
        self._writer: pq.ParquetWriter | None = None

    def write_batch(self, batch: pa.RecordBatch) -> None:
        if not self._dictionaries_hold(batch):
            self._write_row_group()
            self._dictionaries_hold(batch)
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            self._write_row_group()

    def close(self) -> None:
        self._write_row_group()
        self._begun().close()

    def _begun(self) -> pq.ParquetWriter:
        if self._writer is None:
            first = zip(self._schema.names, self._pending[0].columns, strict=True) if self._pending else ()
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression=_COMPRESSION,
                use_dictionary=[name for name, column in first if _repeats_itself(column)],
            )
        return self._writer

    def _write_row_group(self) -> None:
        if self._pending:
            writer = self._begun()
            table = pa.Table.from_batches(self._pending, self._schema)
            self._pending = []
            writer.write_table(table, row_group_size=table.num_rows)
        self._pending_bytes = 0
        self._dictionaries.clear()

    def _dictionaries_hold(self, batch: pa.RecordBatch) -> bool:
        """Take in the dictionaries of a batch; False where an index type cannot count all values of a row group.

        Files that each fit their categories into int8, as pandas does, need not do so together; a row group in
        which they do not can be written, but never read again.
        """
        for field in self._schema:
            if pa.types.is_dictionary(field.type) and field.type.index_type.bit_width < _WIDE_INDEX_BITS:
                fresh = batch.column(field.name).dictionary
                known = self._dictionaries.get(field.name, fresh.slice(0, 0))
                values = pa.concat_arrays([known, fresh]).unique()
                if len(known) and len(values) > 2 ** (field.type.index_type.bit_width - 1):
                    return False
                self._dictionaries[field.name] = values
        return True


class _ArrowWriter:
    """Writes at the end: a file of Arrow has one dictionary for each column, which all batches are to share."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema) -> None:
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
        self._writer = pa.ipc.new_file(sink, schema, options=options)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)

    def close(self) -> None:
        pending, self._pending = self._pending, []
        self._writer.write_table(pa.Table.from_batches(pending, self._schema))
        self._writer.close()


class _CsvWriter:
    def __init__(self, sink: pa.NativeFile, schema: pa.Schema) -> None:
        self._writer = pa.csv.CSVWriter(sink, cells_schema(schema))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(to_cells(batch))

    def close(self) -> None:
        self._writer.close()


def _count_parquet(file: pa.NativeFile) -> int | None:
    rows: int = pq.read_metadata(file).num_rows
    return rows


def _count_arrow(file: pa.NativeFile) -> int | None:
    with pa.ipc.open_file(file) as reader:
        rows: int = reader.count_rows()
        return rows


def _count_csv(file: pa.NativeFile) -> int | None:
    """Count line ends that are not within quotation marks; the first ends the names of the columns."""
    lines, is_quoted, last = 0, False, b""
    while block := file.read(_COUNTED_BYTES):
        texts = block.split(b'"')
        lines += sum(text.count(b"\n") for text in texts[is_quoted::2])
        is_quoted ^= len(texts) % 2 == 0
        last = block[-1:]
    is_whole = lines > 0 and last == b"\n" and not is_quoted
    return lines - 1 if is_whole else None


_WRITERS: dict[ResultFormat, Callable[[pa.NativeFile, pa.Schema], FileWriter]] = {
    ResultFormat.PARQUET: _ParquetWriter,
    ResultFormat.CSV: _CsvWriter,
    ResultFormat.ARROW: _ArrowWriter,
}

_COUNTERS: dict[ResultFormat, Callable[[pa.NativeFile], int | None]] = {
    ResultFormat.PARQUET: _count_parquet,
    ResultFormat.CSV: _count_csv,
    ResultFormat.ARROW: _count_arrow,
}


def _repeats_itself(column: pa.Array) -> bool:
    """Return whether values are likely to recur, so that a dictionary pays: not those of results, nor ids."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_nested(kind):
        return False
    is_sampled = any(is_of(kind) for is_of in _SAMPLED)
    sample = column.slice(0, _SAMPLE_ROWS)
    return not is_sampled or 2 * len(sample.unique()) <= len(sample)
