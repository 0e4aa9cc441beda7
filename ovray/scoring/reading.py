"""Reads the rows of slices in bounded batches, inside a replica.

May not enter: which slices (the driver's), what rows become (tensors.py, outputs.py).
"""

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from ovray.errors import ConfigError, DataError
from ovray.scoring.bad_rows import BadRowError, BadRows, FirstError, Stage
from ovray.scoring.bisecting import first_failing
from ovray.scoring.dataset import DataSet
from ovray.scoring.files import file_info, one_line, open_file
from ovray.scoring.inputs import open_rows
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.read_ahead import ReadAhead
from ovray.scoring.records import Block, FileRef, Rows, RowSource, RowsRef, Slice, StoredTable, Unreadable

#: Rows that show what a column holds: enough to see lists of different lengths, few enough for rows of images.
SAMPLE_ROWS = 16

#: Around damage, batches are smaller by so much: of what is decoded together, all is lost.
_FINER = 1024

#: Pictures of which the first good one is looked for at once: each is a slice of its own.
_PICTURES_TRIED = 64


def read_sample(data: DataSet, errors: ErrorOptions) -> pa.RecordBatch:
    """Return the first rows of a data set with all of its columns; those that may be bad are passed over.

    Raises ConfigError where the first rows turn out to be damaged, or all.
    """
    step = _PICTURES_TRIED if data.has_pictures else data.rows
    first: FirstError | None = None
    with closing(RowReader(data.schema, rows_per_batch=SAMPLE_ROWS)) as reader:
        for start in range(0, data.rows, step):
            stop = min(start + step, data.rows)
            bad = BadRows((start, stop), data.slices(start, stop), ErrorOptions(on_error=errors.on_error))
            try:
                sample = _first_readable(reader, bad)
            except DataError as error:
                raise ConfigError(f"{error}; replace the file or leave it out") from error
            if sample is not None:
                return sample
            first = first or bad.first
    raise ConfigError(f"none of the {data.rows} rows can be read; {'' if first is None else first.text}")


def _first_readable(reader: "RowReader", bad: BadRows) -> pa.RecordBatch | None:
    """Return the first rows that can be read, and note those before them."""
    at = 0
    for rows in reader.read(bad.slices):
        if isinstance(rows, Rows):
            return rows.batch
        bad.add(at, at + rows.rows, Stage.READ, rows.problem)
        at += rows.rows
    return None


class RowReader:
    """Reads slices of a data set, or of whatever else is stored.

    Keeps the file read last open, with its place, so that consecutive chunks decode nothing twice.
    Suits one thread.
    """

    def __init__(self, schema: pa.Schema, *, rows_per_batch: int) -> None:
        """Prepare to read the columns of ``schema``, a part of the data set's; rows at once are bounded."""
        self._schema = schema
        self._rows_per_batch = rows_per_batch
        self._ref: RowsRef | None = None
        self._source: RowSource | None = None
        self._ahead = ReadAhead(self._open_anew)

    def read(self, slices: Iterable[Slice]) -> Iterator[Rows | Unreadable]:
        """Yield all rows of ``slices``, in order, each batch with the columns and types of the reader's schema.

        In the place of damaged rows stands that they are; they are told from others as well as their format can.
        Raises DataError, which names the file, where it is gone, no longer the one it was, or its store fails.
        """
        for one in self._ahead.over(slices):
            for block in one.blocks:
                yield from self._read_block(_Place(one, block))
            if isinstance(one.ref, StoredTable):
                # It costs nothing to open again, and takes room in the store as long as it is open.
                self._close_source()

    def close(self) -> None:
        """Let go of all files; reading may go on afterwards."""
        self._ahead.close()
        self._close_source()

    def _close_source(self) -> None:
        source, self._source, self._ref = self._source, None, None
        if source is not None:
            source.close()

    def _read_block(self, place: "_Place") -> Iterator[Rows | Unreadable]:
        done = place.start
        try:
            for rows in self._read_rows(place, done, place.stop):
                done += rows.rows if isinstance(rows, Unreadable) else rows.batch.num_rows
                yield rows
            return
        except (OSError, pa.ArrowException) as error:
            self._close_source()
            failure = error
        _check_store(place.slice, failure)
        yield from self._read_around_damage(place, done)

    def _read_around_damage(self, place: "_Place", done: int) -> Iterator[Rows | Unreadable]:
        """Yield what can be read from row ``done`` on, in smaller batches, and say that the rest cannot."""
        reader = RowReader(self._schema, rows_per_batch=max(1, self._rows_per_batch // _FINER))

        def attempt(start: int, stop: int) -> None:
            try:
                for _ in reader._read_rows(place, start, stop):
                    pass
            except (OSError, pa.ArrowException) as error:
                reader.close()
                raise BadRowError(one_line(error)) from error

        problem, first = None, place.stop
        with closing(reader):
            try:
                attempt(done, place.stop)
            except BadRowError as error:
                problem = f"cannot be read: {error}"
                first = first_failing(done, place.stop, attempt)
            try:
                for rows in reader._read_rows(place, done, first):
                    done += rows.rows if isinstance(rows, Unreadable) else rows.batch.num_rows
                    yield rows
            except (OSError, pa.ArrowException) as error:
                # What is packed is unpacked in pieces, and now they are others.
                reader.close()
                problem = problem or f"cannot be read: {one_line(error)}"
        if problem is not None:
            yield Unreadable(rows=place.stop - done, problem=problem)

    def _read_rows(self, place: "_Place", start: int, stop: int) -> Iterator[Rows | Unreadable]:
        """Yield rows of a block, counted from its first; raises what the format does."""
        first_row = place.block.first_row + start
        for batch in self._open(place.slice).read(place.block, start, stop):
            if isinstance(batch, Unreadable):
                first_row += batch.rows
                yield batch
                continue
            yield Rows(file=place.slice.ref.name, first_row=first_row, batch=_with_schema(batch, self._schema))
            first_row += batch.num_rows

    def _open(self, one: Slice) -> RowSource:
        ahead = self._ahead.source_of(one)
        if ahead is not None:
            return ahead
        if self._source is None or self._ref != one.ref:
            self._close_source()
            if isinstance(one.ref, FileRef):
                _check_unchanged(one.ref, one.size_bytes)
            try:
                self._source = self._open_anew(one)
            except (OSError, pa.ArrowException) as error:
                # It could be opened when it was looked into: it is not its rows that are bad.
                raise _cannot_be_read(one, error) from error
            self._ref = one.ref
        return self._source

    def _open_anew(self, one: Slice) -> RowSource:
        return open_rows(one.ref, self._schema, rows_per_batch=self._rows_per_batch)


@dataclass(frozen=True, slots=True)
class _Place:
    """Is the part of a block that lies in a slice."""

    slice: Slice
    block: Block

    @property
    def start(self) -> int:
        """Counted from the block's first row, as ``stop`` is."""
        return max(0, self.slice.start - self.block.first_row)

    @property
    def stop(self) -> int:
        return min(self.block.rows, self.slice.stop - self.block.first_row)


def _check_store(one: Slice, failure: Exception) -> None:
    """Raise DataError where it is not the file's content that keeps rows from being read, but where it is kept."""
    try:
        if isinstance(failure, OSError) and failure.errno is not None:
            raise failure  # of the system's; Arrow's own, about content, have no number
        if isinstance(one.ref, FileRef):
            _check_unchanged(one.ref, one.size_bytes)
            with open_file(one.ref) as file:
                file.read(1)
    except (OSError, pa.ArrowException) as error:
        raise _cannot_be_read(one, error) from error


def _cannot_be_read(one: Slice, error: Exception) -> DataError:
    return DataError(
        f"rows {one.start} to {one.stop} of {one.ref.name!r} cannot be read: {one_line(error)}; see whether its"
        " disk or store answers, and the file is as it was; the same command carries on"
    )


def _check_unchanged(ref: FileRef, inspected_bytes: int) -> None:
    size_bytes = file_info(ref).size
    if size_bytes is None:
        raise DataError(
            f"{ref.name!r} is not there on host {socket.gethostname()}; every host that scores needs to see it"
            " at the same path, or name it by a URL"
        )
    if size_bytes != inspected_bytes:
        raise DataError(
            f"{ref.name!r} was changed while it was being scored: it had {inspected_bytes} bytes and now has"
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
