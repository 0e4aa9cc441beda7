"""Reads Arrow's own files (Feather too) and streams: what batches there are, and row ranges of them.

A file says where each record batch is; a stream is gone through from its start, each batch once for ranges that go
upwards.  May not enter: other files of the data set, models, other formats.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import accumulate
from typing import Protocol

import pyarrow as pa

from ovray.scoring.bad_rows import BadRowError
from ovray.scoring.bisecting import bisected
from ovray.scoring.files import file_info, is_url, one_line, open_file
from ovray.scoring.records import Block, FileRef, InputFile, Unreadable

_FILE_START = b"ARROW1"
_STREAM_START = b"\xff\xff\xff\xff"
_OLD_FEATHER_START = b"FEA1"


class _Batches(Protocol):
    """Gives the record batches of one open file."""

    def get(self, number: int) -> pa.RecordBatch | None:
        """Return a batch; ``None`` behind the last."""

    def close(self) -> None:
        """Let go of the file."""


def inspect_arrow(ref: FileRef) -> InputFile:
    """Return the schema and the length of each record batch.  Of the rows, one column is read, the narrowest."""
    info = file_info(ref)
    schema = _read_schema(ref)
    batch_rows = _count_rows(ref, schema)
    rows = sum(batch_rows)
    starts = accumulate(batch_rows, initial=0)
    return InputFile(
        ref=ref,
        # What pandas noted about the whole file does not hold for ranges of its rows.
        schema=schema.remove_metadata(),
        rows=rows,
        blocks=tuple(
            # Only the narrowest column was looked at, so this is about what a batch takes.
            Block(first_row=start, rows=count, position=number, size_bytes=info.size * count // rows)
            for number, (start, count) in enumerate(zip(starts, batch_rows, strict=False))
            if count
        ),
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


def _count_rows(ref: FileRef, schema: pa.Schema) -> list[int]:
    """Return the length of each record batch."""
    if not schema.names:
        return []
    found: list[int] = []
    with closing(_open_batches(ref, [_narrowest(schema)])) as batches:
        while (batch := batches.get(len(found))) is not None:
            found.append(batch.num_rows)
    return found


class ArrowRows:
    """Reads row ranges of one open file; the record batch read last is kept.  Suits one thread."""

    def __init__(self, ref: FileRef, columns: Sequence[str], *, rows_per_batch: int) -> None:
        fields = _read_schema(ref).names
        if not set(columns) <= set(fields):
            raise pa.ArrowInvalid("it holds other columns than it did")
        self._batches = _open_batches(ref, sorted(fields.index(column) for column in columns))
        self._columns = list(columns)
        self._rows_per_batch = rows_per_batch
        self._number: int | None = None
        self._batch: pa.RecordBatch | None = None

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch | Unreadable]:
        """Yield rows ``start`` to ``stop``, both counted from the record batch's first row."""
        batch = self._load(block)
        for at in range(start, stop, self._rows_per_batch):
            piece = batch.slice(at, min(self._rows_per_batch, stop - at))
            yield from _sound_rows(piece)

    def close(self) -> None:
        """Let go of the file."""
        self._number = self._batch = None
        self._batches.close()

    def _load(self, block: Block) -> pa.RecordBatch:
        if self._batch is None or self._number != block.position:
            self._number = self._batch = None
            batch = self._batches.get(block.position)
            if batch is None or batch.num_rows != block.rows:
                raise pa.ArrowInvalid("holds other record batches than it did")
            self._batch, self._number = batch.select(self._columns), block.position
        return self._batch


def _sound_rows(piece: pa.RecordBatch) -> Iterator[pa.RecordBatch | Unreadable]:
    """Yield rows that are what they say; unlike other formats, Arrow's bytes are used as they are.

    Damaged ones would end the process.
    """

    def attempt(start: int, stop: int) -> pa.RecordBatch:
        rows = piece.slice(start, stop - start)
        try:
            rows.validate(full=True)
        except pa.ArrowException as error:
            raise BadRowError(one_line(error)) from error
        return rows

    problems: list[str] = []
    for _, _, rows in bisected(
        0, piece.num_rows, attempt, lambda _, error: problems.append(f"cannot be read: {error}")
    ):
        yield from (Unreadable(rows=1, problem=problem) for problem in problems)
        problems.clear()
        yield rows
    yield from (Unreadable(rows=1, problem=problem) for problem in problems)


class _FileBatches:
    def __init__(self, source: pa.NativeFile, fields: list[int]) -> None:
        self._source = source
        self._reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))

    def get(self, number: int) -> pa.RecordBatch | None:
        return self._reader.get_batch(number) if number < self._reader.num_record_batches else None

    def close(self) -> None:
        self._source.close()


class _StreamBatches:
    def __init__(self, ref: FileRef, fields: list[int]) -> None:
        self._ref = ref
        self._fields = fields
        self._begin()

    def get(self, number: int) -> pa.RecordBatch | None:
        if number < self._next:
            self._source.close()
            self._begin()
        batch = None
        while self._next <= number:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return None
            self._next += 1
        return batch

    def close(self) -> None:
        self._source.close()

    def _begin(self) -> None:
        self._source = _open(self._ref)
        self._reader = pa.ipc.open_stream(
            self._source, options=pa.ipc.IpcReadOptions(included_fields=self._fields)
        )
        #: Number of the batch that comes next.
        self._next = 0


def _open_batches(ref: FileRef, fields: list[int]) -> _Batches:
    return _FileBatches(_open(ref), fields) if _is_file(ref) else _StreamBatches(ref, fields)


def _open(ref: FileRef) -> pa.NativeFile:
    """Open a file; a local one is mapped: of a batch larger than memory only the rows in use are loaded then."""
    return open_file(ref) if is_url(ref.location) else pa.memory_map(ref.location)


def _is_file(ref: FileRef) -> bool:
    """Return whether this is a file with a footer, not a stream."""
    with open_file(ref) as source:
        start: bytes = source.read(len(_FILE_START))
    if start.startswith(_OLD_FEATHER_START):
        raise pa.ArrowInvalid("it is of Feather's version 1, which is no Arrow; write it again in version 2")
    if start != _FILE_START and not start.startswith(_STREAM_START):
        raise pa.ArrowInvalid("it begins like neither a file nor a stream of Arrow")
    return start == _FILE_START


def _read_schema(ref: FileRef) -> pa.Schema:
    with _open(ref) as source:
        reader = pa.ipc.open_file(source) if _is_file(ref) else pa.ipc.open_stream(source)
        try:
            str(reader.schema)  # goes through all names, nested ones too
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid("names of its columns are not UTF-8") from error
        return reader.schema


def _narrowest(schema: pa.Schema) -> int:
    """Return the number of a field that is read at least cost."""

    def bits(number: int) -> int:
        kind = schema.field(number).type
        return int(kind.bit_width) if pa.types.is_primitive(kind) else 2**31

    return min(range(len(schema)), key=bits)
