"""Reads JSON Lines: one bounded pass that checks all lines and finds the types, then row ranges.

UTF-8, one object a line, blank lines passed over; gzip where the name ends in ``.gz``.  A key that a line lacks is
null.  Text stays text, also where it looks like a time.  Whole numbers become floating beyond 64 bits and beside
fractions, which rounds those beyond 2**53.
May not enter: other files of the data set, models, other formats.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.json as pajson

from ovray.errors import ConfigError
from ovray.scoring.files import file_info, one_line, open_stream
from ovray.scoring.guessed_types import common_fields
from ovray.scoring.json_records import MAX_NESTING, STRING, nesting, split_lines
from ovray.scoring.on_error import OnError
from ovray.scoring.records import FileRef, InputFile
from ovray.scoring.text_blocks import (
    LINE_BREAK,
    Found,
    Records,
    Text,
    TextRows,
    begin_lines,
    count_blocks,
    last_line_end,
    refuse_other_encodings,
    whole_records,
)

#: pyarrow's parser ends the process on ``null`` in place of an object, and goes on in one line after an object.
_NO_OBJECT = re.compile(rb"\n[ \t\r]*[^{\s]")
_AFTER_OBJECT = re.compile(rb"\}[ \t\r]*[^\s,}\]]")

_ROW = re.compile(r" in row (\d+)$")


def inspect_json_lines(
    ref: FileRef, *, rows_wanted: int | None = None, on_error: OnError = OnError.RAISE
) -> InputFile:
    """Parse the whole file once, in blocks, and return its blocks and the types that hold every value.

    ``rows_wanted`` ends the pass at the block in which that many rows are reached.
    Raises ConfigError for a line that is no object or does not go with the others, naming file and line, unless
    bad lines are recorded.
    """
    info = file_info(ref)
    types: dict[str, pa.DataType] = {}

    def check(text: Text) -> int:
        table = _check_block(text, ref)
        found = common_fields(types, [field.with_type(_without_times(field.type)) for field in table.schema])
        if isinstance(found, str):
            raise _other_type_error(ref, found, types[found], table.schema.field(found).type, text)
        types.update(found)
        return int(table.num_rows)

    def find_records(text: Text) -> Found:
        try:
            return Found(rows=check(text))
        except ConfigError:
            if on_error is OnError.RAISE:
                raise
        content, bad = split_lines(text.content, types, None)
        return Found(rows=check(replace(text, content=content)) + len(bad), has_bad=bool(bad))

    with open_stream(ref) as stream:
        texts = whole_records(
            stream,
            begin_lines(stream, ref),
            last_line_end,
            name=ref.name,
            if_endless="a JSON Lines file holds one object a line",
        )
        blocks = count_blocks(texts, find_records, rows_wanted)
    if blocks and not types:
        raise ConfigError(f"{ref.name!r} holds objects without keys, so it has no columns; leave the file out")
    return InputFile(
        ref=ref,
        schema=pa.schema(list(types.items())),
        rows=sum(block.rows for block in blocks),
        blocks=blocks,
        size_bytes=info.size,
        modified_ns=info.mtime_ns,
    )


def open_json_lines(ref: FileRef, schema: pa.Schema, *, rows_per_batch: int) -> TextRows:
    """Open a file for reading the columns of ``schema``; values become its types."""

    def parse_bad(text: bytes) -> Records:
        content, bad = split_lines(text, dict(zip(schema.names, schema.types, strict=True)), schema.names)
        table = _parse(content, schema) if content else schema.empty_table()
        return Records(table=table, bad=bad)

    return TextRows(ref, lambda text: _parse(text, schema), parse_bad, rows_per_batch=rows_per_batch)


def _parse(text: bytes, schema: pa.Schema | None) -> pa.Table:
    """Parse lines into the columns of ``schema``, or into all that there are, as pyarrow guesses them."""
    if not text.strip():
        return pa.table({})
    table = pajson.read_json(
        pa.BufferReader(text),
        read_options=pajson.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )
    return table.combine_chunks()


def _without_times(of: pa.DataType) -> pa.DataType:
    """Return the type with text where pyarrow guessed times: JSON has none, and a kept column stays as it is."""
    if pa.types.is_timestamp(of):
        return pa.string()
    if pa.types.is_list(of):
        return pa.list_(_without_times(of.value_type))
    if pa.types.is_struct(of):
        return pa.struct([field.with_type(_without_times(field.type)) for field in of])
    return of


def _check_block(text: Text, ref: FileRef) -> pa.Table:
    refuse_other_encodings(text, ref)
    _refuse_fatal_lines(text, ref)
    try:
        return _parse(text.content, None)
    except pa.ArrowInvalid as error:
        _refuse_broken_lines(text, ref)
        problem = one_line(error).removeprefix("JSON parse error: ")
        row = _ROW.search(problem)
        if row is None:
            raise ConfigError(f"{ref.name!r} is no valid JSON from line {text.line} on: {problem}") from error
        raise _line_error(ref, _line_of_row(text, int(row[1])), problem[: row.start()].rstrip(".")) from error


def _refuse_fatal_lines(text: Text, ref: FileRef) -> None:
    """Refuse lines that are something else than one object, or nest too deeply."""
    other = _NO_OBJECT.search(LINE_BREAK + text.content)
    if other is not None:
        raise _line_error(ref, text.line_at(other.end() - 2), "it does not begin with '{'")
    opened = text.content.count(b"[") + text.content.count(b"{") - text.content.count(LINE_BREAK)
    if opened <= MAX_NESTING and _AFTER_OBJECT.search(text.content) is None:
        return
    # Brackets may well stand within strings: what counts is what is left without them.  No line break is in one.
    bare = replace(text, content=STRING.sub(b"", text.content))
    if nesting(bare.content) > MAX_NESTING:
        for number, line in _lines(bare):
            if nesting(line) > MAX_NESTING:
                raise _line_error(ref, number, f"lists and objects nest deeper than {MAX_NESTING} levels")
        _refuse_broken_lines(text, ref)  # what is opened in some lines is not closed there
    after = _AFTER_OBJECT.search(bare.content)
    if after is not None:
        _refuse_broken_lines(text, ref)
        raise _line_error(ref, bare.line_at(after.start()), "something follows the object")


def _refuse_broken_lines(text: Text, ref: FileRef) -> None:
    """Name the first line that is no JSON; pyarrow does not always say which."""
    for number, line in _lines(text):
        problem = _syntax_problem(line)
        if problem is not None:
            raise _line_error(ref, number, problem)


def _syntax_problem(line: bytes) -> str | None:
    try:
        json.loads(line.decode(), strict=False)
    except json.JSONDecodeError as error:
        return f"{error.msg} at column {error.colno}"
    return None


def _lines(text: Text) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, each with its number in the file."""
    for number, line in enumerate(text.content.split(LINE_BREAK), start=text.line):
        if line.strip():
            yield number, line


def _line_of_row(text: Text, row: int) -> int:
    for at, (number, _) in enumerate(_lines(text)):
        if at == row:
            return number
    return text.line


def _line_error(ref: FileRef, line: int, problem: str) -> ConfigError:
    return ConfigError(
        f"{ref.name!r}, line {line}: {problem}; JSON Lines hold one whole object a line, whose values"
        " have one type for each key; mend this line, then start again"
    )


def _other_type_error(
    ref: FileRef, column: str, known: pa.DataType, found: pa.DataType, text: Text
) -> ConfigError:
    return ConfigError(
        f"{ref.name!r}: column {column!r} is {known} up to line {text.line - 1} but {found} from there on; it"
        " needs one type in all lines: mend the file, then start again"
    )
