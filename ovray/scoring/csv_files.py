"""Reads CSV files: one bounded pass that checks all records and finds the types, then row ranges.

UTF-8, commas, quotation marks as RFC 4180 has them, a header line; LF or CRLF; gzip where the name ends in
``.gz``.
May not enter: other files of the data set, models, Parquet.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from ovray.errors import ConfigError
from ovray.scoring import text_blocks
from ovray.scoring.csv_records import first_record_end, last_record_end, open_quote, split_records
from ovray.scoring.files import file_info, one_line, open_stream
from ovray.scoring.guessed_types import common_text_type
from ovray.scoring.on_error import OnError
from ovray.scoring.records import FileRef, InputFile
from ovray.scoring.text_blocks import (
    BYTE_ORDER_MARK,
    LINE_BREAK,
    NOT_UTF8,
    Found,
    Records,
    Text,
    TextRows,
    count_blocks,
    is_utf8,
    refuse_other_encodings,
    refuse_utf16,
    whole_records,
)

#: Cells that are null in a column of numbers, times or truth values.  pyarrow's own list, but for the spellings of
#: NaN: those are numbers and stay NaN.
_NULLS = [text for text in pacsv.ConvertOptions().null_values if "nan" not in text.lower()]


def inspect_csv(ref: FileRef, *, rows_wanted: int | None = None, on_error: OnError = OnError.RAISE) -> InputFile:
    """Parse the whole file once, in blocks, and return its blocks and the types that hold every value.

    ``rows_wanted`` ends the pass at the block in which that many rows are reached.
    Raises ConfigError for a record with too many or too few fields, or not in UTF-8, naming file and line, unless
    bad records are recorded; and for a file that ends within a quoted field.
    """
    info = file_info(ref)
    with open_stream(ref) as stream:
        header = _read_header(stream, ref)
        types: list[pa.DataType] = [pa.null() for _ in header.names]

        def find_records(text: Text) -> Found:
            found = _find_records(text, header.names, ref, on_error)
            types[:] = [
                common_text_type(old, field.type) for old, field in zip(types, found.table.schema, strict=True)
            ]
            return Found(rows=found.count, has_bad=bool(found.bad))

        texts = whole_records(
            stream,
            header.behind,
            last_record_end,
            name=ref.name,
            if_endless='look for a quotation mark (") without its pair',
        )
        blocks = count_blocks(texts, find_records, rows_wanted)
    return InputFile(
        ref=ref,
        schema=pa.schema(list(zip(header.names, types, strict=True))),
        rows=sum(block.rows for block in blocks),
        blocks=blocks,
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


def open_csv(ref: FileRef, schema: pa.Schema, *, rows_per_batch: int) -> TextRows:
    """Open a file for reading the columns of ``schema``; cells become its types."""
    with open_stream(ref) as stream:
        names = _read_header(stream, ref).names
    options = _convert_options(schema)
    return TextRows(
        ref,
        lambda text: _parse(text, names, options),
        lambda text: _parse_bad(text, names, schema),
        rows_per_batch=rows_per_batch,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    names: tuple[str, ...]
    #: What was read beyond the header, the byte order mark and blank lines.
    behind: Text


def _read_header(stream: pa.NativeFile, ref: FileRef) -> _Header:
    text, end = b"", 0
    while not end and len(text) <= text_blocks.MAX_RECORD_BYTES:
        fresh: bytes = stream.read(text_blocks.BLOCK_BYTES)
        text += fresh
        skipped = _before_header(text)
        end = first_record_end(text[skipped:])
        if not fresh:
            break
    refuse_utf16(text, ref)
    end = skipped + (end or len(text))
    record = text[skipped:end]
    line = 1 + text.count(LINE_BREAK, 0, end)
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
    return _Header(names=names, behind=Text(content=text[end:], position=end, line=line))


def _before_header(text: bytes) -> int:
    """Count the bytes of a byte order mark and of blank lines."""
    skipped = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
    while text[skipped : skipped + 1] in (b"\r", b"\n"):
        skipped += 1
    return skipped


def _find_records(text: Text, names: Sequence[str], ref: FileRef, on_error: OnError) -> Records:
    try:
        return Records(table=_check_block(text, names, ref))
    except ConfigError:
        if on_error is OnError.RAISE:
            raise
    if text.is_last:
        _refuse_open_quote(text, ref)
    try:
        return _parse_bad(text.content, names, None)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{ref.name!r} is no valid CSV from line {text.line} on: {one_line(error)}") from error


def _check_block(text: Text, names: Sequence[str], ref: FileRef) -> pa.Table:
    refuse_other_encodings(text, ref)
    if text.is_last:
        _refuse_open_quote(text, ref)
    try:
        return _parse(text.content, names, _convert_options(None))
    except _UnevenRecordError as error:
        raise ConfigError(
            f"{ref.name!r}, line {text.line + error.lines_before(text.content)}: {error.found} fields where the"
            f" header names {len(names)} columns; mend this line, then start again"
        ) from error
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{ref.name!r} is no valid CSV from line {text.line} on: {one_line(error)}") from error


def _refuse_open_quote(text: Text, ref: FileRef) -> None:
    """Refuse the last text of a file that ends within a quoted field; pyarrow would take it for a whole one."""
    at = open_quote(text.content)
    if at is not None:
        raise ConfigError(
            f"{ref.name!r}, line {text.line_at(at)}: a quotation mark opens here that nothing closes; the file"
            " seems to be cut short"
        )


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


def _parse_bad(text: bytes, names: Sequence[str], schema: pa.Schema | None) -> Records:
    """Parse the records that can be, and tell the others from them."""
    records = [record for record in split_records(text) if record.strip(b"\r\n")]
    bad = {number: NOT_UTF8 for number, record in enumerate(records) if not is_utf8(record)}
    numbers = [number for number in range(len(records)) if number not in bad]

    def leave_out(row: pacsv.InvalidRow) -> str:
        bad[numbers[row.number - 1]] = (
            f"has {row.actual_columns} fields where the header names {len(names)} columns"
        )
        return "skip"

    content = b"".join(records[number] for number in numbers)
    if not content:
        wanted = pa.schema([(name, pa.null()) for name in names]) if schema is None else schema
        return Records(table=wanted.empty_table(), bad=bad)
    table = pacsv.read_csv(
        pa.BufferReader(content),
        read_options=pacsv.ReadOptions(column_names=list(names), use_threads=False, block_size=len(content)),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=leave_out),
        convert_options=_convert_options(schema),
    )
    return Records(table=table.combine_chunks(), bad=bad)


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
                return block.count(LINE_BREAK, 0, at + 1)
        return 0
