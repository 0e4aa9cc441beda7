"""Reads the rows of slices in bounded batches, inside a replica.

May not enter: which slices (the driver's), what rows become (tensors.py, outputs.py).
"""

import socket
from collections.abc import Iterable, Iterator

import pyarrow as pa

from ovray.errors import ConfigError, DataError
from ovray.scoring.dataset import DataSet
from ovray.scoring.files import file_info, one_line
from ovray.scoring.inputs import open_rows
from ovray.scoring.read_ahead import ReadAhead
from ovray.scoring.records import FileRef, Rows, RowSource, Slice

#: Rows that show what a column holds: enough to see lists of different lengths, few enough for rows of images.
_SAMPLE_ROWS = 16


def read_sample(data: DataSet, schema: pa.Schema | None = None) -> pa.RecordBatch:
    """Return the first rows of a data set with all of its columns, as the data has them or as ``schema`` does.

    Raises ConfigError where the first file turns out to be damaged.
    """
    file = data.files[0]
    reader = RowReader(schema or data.schema, rows_per_batch=_SAMPLE_ROWS)
    try:
        return next(reader.read(data.slices(0, min(_SAMPLE_ROWS, file.rows, data.rows)))).batch
    except DataError as error:
        raise ConfigError(f"{error}; replace the file or leave it out") from error
    finally:
        reader.close()


class RowReader:
    """Reads slices of a data set.

    Keeps the file read last open, with its place, so that consecutive chunks decode nothing twice.
    Suits one thread.
    """

    def __init__(self, schema: pa.Schema, *, rows_per_batch: int) -> None:
        """Prepare to read the columns of ``schema``, a part of the data set's; rows at once are bounded."""
        self._schema = schema
        self._rows_per_batch = rows_per_batch
        self._ref: FileRef | None = None
        self._source: RowSource | None = None
        self._ahead = ReadAhead(self._open_anew)

    def read(self, slices: Iterable[Slice]) -> Iterator[Rows]:
        """Yield all rows of ``slices``, in order, each batch with the columns and types of the reader's schema.

        Raises DataError, which names the file, where a file is damaged, gone or no longer the one it was.
        """
        for one in self._ahead.over(slices):
            try:
                yield from self._read_slice(one)
            except (OSError, pa.ArrowException) as error:
                self.close()
                raise DataError(
                    f"rows {one.start} to {one.stop} of {one.ref.name!r} cannot be read: {one_line(error)}"
                ) from error

    def close(self) -> None:
        """Let go of the open file; reading may go on afterwards."""
        self._ahead.close()
        source, self._source, self._ref = self._source, None, None
        if source is not None:
            source.close()

    def _read_slice(self, one: Slice) -> Iterator[Rows]:
        source = self._open(one)
        for block in one.blocks:
            start = max(0, one.start - block.first_row)
            stop = min(block.rows, one.stop - block.first_row)
            first_row = block.first_row + start
            for batch in source.read(block, start, stop):
                yield Rows(file=one.ref.name, first_row=first_row, batch=_with_schema(batch, self._schema))
                first_row += batch.num_rows

    def _open(self, one: Slice) -> RowSource:
        ahead = self._ahead.source_of(one)
        if ahead is not None:
            return ahead
        if self._source is None or self._ref != one.ref:
            self.close()
            _check_unchanged(one)
            self._source = self._open_anew(one)
            self._ref = one.ref
        return self._source

    def _open_anew(self, one: Slice) -> RowSource:
        return open_rows(one.ref, self._schema, rows_per_batch=self._rows_per_batch)


def _check_unchanged(one: Slice) -> None:
    size_bytes = file_info(one.ref).size
    if size_bytes is None:
        raise DataError(
            f"{one.ref.name!r} is not there on host {socket.gethostname()}; every host that scores needs to see it"
            " at the same path, or name it by a URL"
        )
    if size_bytes != one.size_bytes:
        raise DataError(
            f"{one.ref.name!r} was changed while it was being scored: it had {one.size_bytes} bytes and now has"
            f" {size_bytes}; start again"
        )


def _with_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a batch the data set's types, which differ only for nulls alone and for narrower dictionaries."""
    columns = [_with_type(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _with_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    return pa.nulls(len(column), kind) if pa.types.is_null(column.type) else column.cast(kind)
