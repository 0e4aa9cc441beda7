"""Reads plain text: each line is a row with the one column ``text``.

UTF-8; LF or CRLF, which is no part of the row; gzip where the name ends in ``.gz``.  A blank line is a row too, so
that rows are counted as editors count lines.  May not enter: what the lines mean.
"""

import pyarrow as pa
import pyarrow.compute as pc

from ovray.scoring.files import file_info, open_stream
from ovray.scoring.on_error import OnError
from ovray.scoring.records import FileRef, InputFile
from ovray.scoring.text_blocks import (
    LINE_BREAK,
    NOT_UTF8,
    Found,
    Records,
    Text,
    TextRows,
    begin_lines,
    count_blocks,
    is_utf8,
    last_line_end,
    refuse_other_encodings,
    whole_records,
)

#: Name of the column that a line becomes.
TEXT_COLUMN = "text"


def inspect_text_lines(
    ref: FileRef, *, rows_wanted: int | None = None, on_error: OnError = OnError.RAISE
) -> InputFile:
    """Count the lines in one pass, in blocks; ``rows_wanted`` ends it where that many are reached.

    Raises ConfigError for a line that is not UTF-8, naming file and line, unless bad lines are recorded.
    """
    info = file_info(ref)

    def find_records(text: Text) -> Found:
        if on_error is OnError.RAISE:
            refuse_other_encodings(text, ref)
        breaks = text.content.count(LINE_BREAK)
        rows = breaks if text.content.endswith(LINE_BREAK) else breaks + 1
        return Found(rows=rows, has_bad=on_error is OnError.RECORD and not is_utf8(text.content))

    with open_stream(ref) as stream:
        texts = whole_records(
            stream,
            begin_lines(stream, ref),
            last_line_end,
            name=ref.name,
            if_endless="part the text into lines",
        )
        blocks = count_blocks(texts, find_records, rows_wanted)
    return InputFile(
        ref=ref,
        schema=pa.schema({TEXT_COLUMN: pa.string()}),
        rows=sum(block.rows for block in blocks),
        blocks=blocks,
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


def open_text_lines(ref: FileRef, *, rows_per_batch: int) -> TextRows:
    """Open a file for reading its lines."""
    return TextRows(ref, _parse, _parse_bad, rows_per_batch=rows_per_batch)


def _parse_bad(text: bytes) -> Records:
    """Tell the lines that are UTF-8 from others."""
    lines = text.replace(b"\r\n", LINE_BREAK).removesuffix(LINE_BREAK).split(LINE_BREAK)
    good = [line for line in lines if is_utf8(line)]
    return Records(
        table=pa.table({TEXT_COLUMN: pa.array(good, pa.string())}),
        bad={number: NOT_UTF8 for number, line in enumerate(lines) if not is_utf8(line)},
    )


def _parse(text: bytes) -> pa.Table:
    whole = text.replace(b"\r\n", LINE_BREAK).removesuffix(LINE_BREAK)
    lines = pc.split_pattern(pa.array([whole], pa.string()), "\n").flatten()
    return pa.table({TEXT_COLUMN: lines})
