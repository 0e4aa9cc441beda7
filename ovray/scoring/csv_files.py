"""Reads CSV files: one bounded pass that checks all records and finds the types, then row ranges.

UTF-8, commas, quotation marks as RFC 4180 has them, a header line; LF or CRLF; gzip where the name ends in
``.gz``.
May not enter: other files of the data set, models, Parquet.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from ovray.errors import ConfigError
from ovray.scoring.csv_records import first_record_end, last_record_end, open_quote
from ovray.scoring.files import file_info, one_line, open_file, open_stream
from ovray.scoring.records import Block, FileRef, InputFile

#: Text in one block.  A replica holds one block as text and as columns, so this bounds its memory; and a chunk
#: that begins inside a block costs the parsing of that block.
BLOCK_BYTES = 8 * 1024 * 1024

#: A record longer than this is taken for a lone quotation mark rather than for a record.
_MAX_RECORD_BYTES = 8 * BLOCK_BYTES

#: Cells that are null in a column of numbers, times or truth values.  pyarrow's own list, but for the spellings of
#: NaN: those are numbers and stay NaN.
_NULLS = [text for text in pacsv.ConvertOptions().null_values if "nan" not in text.lower()]

_LINE_BREAK = b"\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def inspect_csv(ref: FileRef, *, rows_wanted: int | None = None) -> InputFile:
    """Parse the whole file once, in blocks, and return its blocks and the types that hold every value.

    ``rows_wanted`` ends the pass at the block in which that many rows are reached.
    Raises ConfigError for a record with too many or too few fields, naming file and line.
    """
    info = file_info(ref)
    with open_stream(ref) as stream:
        header = _read_header(stream, ref)
        blocks: list[Block] = []
        types: list[pa.DataType] = [pa.null() for _ in header.names]
        rows = 0
        for text, position, line in _texts(stream, header, ref):
            table = _check_block(text, header.names, ref, line)
            types = [common_type(old, field.type) for old, field in zip(types, table.schema, strict=True)]
            if table.num_rows:
                blocks.append(Block(first_row=rows, rows=table.num_rows, position=position, size_bytes=len(text)))
            rows += table.num_rows
            if rows_wanted is not None and rows >= rows_wanted:
                break
    return InputFile(
        ref=ref,
        schema=pa.schema(list(zip(header.names, types, strict=True))),
        rows=rows,
        blocks=tuple(blocks),
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of two blocks or files of CSV, whose types pyarrow guessed one by one.

    Where no type holds both without loss, the cells stay the text that they are.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for narrow, wide in ((pa.int64(), pa.float64()), (pa.date32(), pa.timestamp("s"))):
        if {one, other} == {narrow, wide}:
            return wide
    return pa.string()


class CsvRows:
    """Reads row ranges of one open CSV file; the block parsed last is kept.  Suits one thread."""

    def __init__(self, ref: FileRef, schema: pa.Schema, *, rows_per_batch: int) -> None:
        with open_stream(ref) as stream:
            self._names = _read_header(stream, ref).names
        self._text: _SeekableText | _PackedText
        self._text = _PackedText(ref) if ref.location.lower().endswith(".gz") else _SeekableText(ref)
        self._options = _convert_options(schema)
        self._rows_per_batch = rows_per_batch
        self._block: Block | None = None
        self._table: pa.Table | None = None

    def read(self, block: Block, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield rows ``start`` to ``stop``, both counted from the block's first row."""
        if self._table is None or self._block != block:
            self._table = _parse(self._text.read(block), self._names, self._options)
            self._block = block
            if self._table.num_rows != block.rows:
                raise pa.ArrowInvalid(f"holds {self._table.num_rows} rows where there were {block.rows}")
        rows = self._table.slice(start, stop - start)
        yield from rows.to_batches(max_chunksize=self._rows_per_batch)

    def close(self) -> None:
        """Let go of the file."""
        self._table = self._block = None
        self._text.close()


class _SeekableText:
    """Gives the text of any block at once."""

    def __init__(self, ref: FileRef) -> None:
        self._file = open_file(ref)

    def read(self, block: Block) -> bytes:
        self._file.seek(block.position)
        text: bytes = self._file.read(block.size_bytes)
        return text

    def close(self) -> None:
        self._file.close()


class _PackedText:
    """Gives the text of a block by unpacking all that stands before it; upward ranges unpack each byte once."""

    def __init__(self, ref: FileRef) -> None:
        self._ref = ref
        self._stream = open_stream(ref)
        self._position = 0

    def read(self, block: Block) -> bytes:
        if block.position < self._position:
            self._stream.close()
            self._stream = open_stream(self._ref)
            self._position = 0
        while self._position < block.position:
            skipped = len(self._stream.read(min(BLOCK_BYTES, block.position - self._position)))
            if not skipped:
                raise pa.ArrowInvalid("ends before the rows that it held")
            self._position += skipped
        text: bytes = self._stream.read(block.size_bytes)
        self._position += len(text)
        return text

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    names: tuple[str, ...]
    #: Bytes up to the first record, the byte order mark and blank lines included.
    size_bytes: int
    #: Line breaks up to the first record.
    lines: int
    #: Text that was read beyond the header.
    rest: bytes


def _read_header(stream: pa.NativeFile, ref: FileRef) -> _Header:
    text, end = b"", 0
    while not end and len(text) <= _MAX_RECORD_BYTES:
        fresh: bytes = stream.read(BLOCK_BYTES)
        text += fresh
        skipped = _before_header(text)
        end = first_record_end(text[skipped:])
        if not fresh:
            break
    if text.startswith(_OTHER_BYTE_ORDER_MARKS):
        raise ConfigError(f"{ref.name!r} is encoded in UTF-16: ovray reads CSV in UTF-8; convert it first")
    end = skipped + (end or len(text))
    record, rest = text[skipped:end], text[end:]
    lines = text.count(_LINE_BREAK, 0, end)
    if not record.strip():
        raise ConfigError(f"{ref.name!r} is empty: a CSV file begins with a line of column names")
    try:
        names = tuple(next(csv.reader([record.decode()], strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{ref.name!r} does not begin with a line of column names, in UTF-8, that ends with LF or CRLF"
        ) from error
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(
            f"{ref.name!r} names the column {doubled[0]!r} more than once in its first line; rename one"
        )
    return _Header(names=names, size_bytes=skipped + len(record), lines=lines, rest=rest)


def _before_header(text: bytes) -> int:
    """Count the bytes of a byte order mark and of blank lines."""
    skipped = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0
    while text[skipped : skipped + 1] in (b"\r", b"\n"):
        skipped += 1
    return skipped


def _texts(stream: pa.NativeFile, header: _Header, ref: FileRef) -> Iterator[tuple[bytes, int, int]]:
    """Yield runs of whole records, each with the offset and the line (from 1) at which it begins."""
    position, line = header.size_bytes, header.lines + 1
    pending = header.rest
    while True:
        fresh: bytes = stream.read(BLOCK_BYTES)
        if not fresh:
            _refuse_open_quote(pending, line, ref)
        end = last_record_end(pending) if fresh else len(pending)
        if end:
            yield pending[:end], position, line
            position += end
            line += pending.count(_LINE_BREAK, 0, end)
        elif len(pending) > _MAX_RECORD_BYTES:
            raise ConfigError(
                f"{ref.name!r}: the record that begins in line {line} does not end within"
                f' {_MAX_RECORD_BYTES // 2**20} MiB; look for a quotation mark (") without its pair'
            )
        if not fresh:
            return
        pending = pending[end:] + fresh


def _refuse_open_quote(text: bytes, line: int, ref: FileRef) -> None:
    """Refuse the last text of a file that ends within a quoted field; pyarrow would take it for a whole one."""
    at = open_quote(text)
    if at is not None:
        raise ConfigError(
            f"{ref.name!r}, line {line + text.count(_LINE_BREAK, 0, at)}: a quotation mark opens here that nothing"
            " closes; the file seems to be cut short"
        )


def _check_block(text: bytes, names: Sequence[str], ref: FileRef, line: int) -> pa.Table:
    _refuse_other_encodings(text, ref, line)
    try:
        return _parse(text, names, _convert_options(None))
    except _UnevenRecordError as error:
        raise ConfigError(
            f"{ref.name!r}, line {line + error.lines_before(text)}: {error.found} fields where the header names"
            f" {len(names)} columns; mend this line, then start again"
        ) from error
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{ref.name!r} is no valid CSV from line {line} on: {one_line(error)}") from error


def _refuse_other_encodings(text: bytes, ref: FileRef, line: int) -> None:
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line += text.count(_LINE_BREAK, 0, error.start)
        raise ConfigError(
            f"{ref.name!r}, line {line}: byte 0x{text[error.start]:02x} is not UTF-8; convert the file first"
        ) from error


def _parse(text: bytes, names: Sequence[str], options: pacsv.ConvertOptions) -> pa.Table:
    """Parse records that have no header; gives a table of at most one chunk a column."""
    uneven: list[pacsv.InvalidRow] = []

    def remember(row: pacsv.InvalidRow) -> str:
        uneven.append(row)
        return "error"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(
                column_names=list(names), use_threads=False, block_size=max(1, len(text))
            ),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=remember),
            convert_options=options,
        )
    except pa.ArrowInvalid as error:
        if uneven:
            raise _UnevenRecordError(str(error), found=uneven[0].actual_columns, text=uneven[0].text) from error
        raise
    return table.combine_chunks()


def _convert_options(schema: pa.Schema | None) -> pacsv.ConvertOptions:
    """Return what pyarrow converts cells to: the columns of ``schema``, or all of them as it guesses."""
    if schema is None:
        return pacsv.ConvertOptions(null_values=_NULLS)
    return pacsv.ConvertOptions(
        null_values=_NULLS,
        column_types=schema,
        include_columns=schema.names,
    )


class _UnevenRecordError(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow ships no types
    """A record has too many or too few fields."""

    def __init__(self, message: str, *, found: int, text: str) -> None:
        super().__init__(message)
        self.found = found
        self.text = text

    def lines_before(self, block: bytes) -> int:
        """Count the lines of the block that stand before the record."""
        record = self.text.encode(errors="surrogateescape")
        if block.startswith(record + b"\n") or block.startswith(record + b"\r\n"):
            return 0
        for pattern in (b"\n" + record + b"\n", b"\n" + record + b"\r\n", b"\n" + record):
            at = block.find(pattern)
            if at >= 0:
                return block.count(_LINE_BREAK, 0, at + 1)
        return 0
